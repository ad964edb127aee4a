"""Bringing the page to where others can use it. Not part of what runs there."""
