"""What was asked and made: the journal, the image files, the recipe inside each.

`history.store.History` is the only way in; `history.metadata` reads the recipe
of an image that somebody drops on the page.
"""
