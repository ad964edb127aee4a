"""The page. Layout is arranged by hand; controls derive from GenerationRequest."""

import os

# Gradio reads these when it is imported, which is below this line for every module here.
# Its default rebuilds a data frame of all requests after every event.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "100000")
