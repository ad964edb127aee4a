"""Jobs live here, not in a browser tab: journaled first, submitted once, watched from anywhere."""

from jobs.board import JobView
from jobs.fetching import Fetching
from jobs.runner import Runner

__all__ = ["Fetching", "JobView", "Runner"]
