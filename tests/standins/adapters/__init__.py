"""A corpus of adapter files, made by the tests: every layout met in the wild, and hostile ones.

corpus()                the files at a tiny width, with what a reader should find in each
adapter("kohya-fused")  one of them: .data(), .header(), .write_sparse(path), .merged(weights)
Maker(REAL)             makes more, at the real width if asked
large()                 170 MB at the real width, described and not made
hostile()               bytes that must be refused, with the time and memory they may cost
"""

from tests.standins.adapters.adapter import Adapter, Maker
from tests.standins.adapters.catalogue import adapter, corpus, large
from tests.standins.adapters.changes import Spec
from tests.standins.adapters.hostile import Hostile, hostile
from tests.standins.adapters.model import REAL, TINY, Size

__all__ = [
    "REAL",
    "TINY",
    "Adapter",
    "Hostile",
    "Maker",
    "Size",
    "Spec",
    "adapter",
    "corpus",
    "hostile",
    "large",
]
