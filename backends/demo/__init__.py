"""The keyless backend: pictures drawn from the recipe, and marked as a demo."""

from backends.demo.backend import DemoBackend

__all__ = ["DemoBackend"]
