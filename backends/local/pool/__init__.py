"""A pool of GPUs: the engine as a Ray Serve deployment, and the page's desk in front of it."""
