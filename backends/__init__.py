"""Ways to make an image. A new one is a new file here and one line in `registry`."""
