"""The page. Layout is arranged by hand; controls derive from GenerationRequest."""
