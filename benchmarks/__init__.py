"""What the project's figures come from: `python -m benchmarks.load`, `.gallery`, `.startup`."""
