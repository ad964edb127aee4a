"""Adapters: what there is, what each one is, and how a backend gets it."""
