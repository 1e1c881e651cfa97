"""Parts of a batch in threads: NumPy, BLAS and compiled code let go of Python's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numba
import numpy as np

PartT = TypeVar("PartT")
FoundT = TypeVar("FoundT")


def parts(count: int, size: int) -> list[slice]:
    """Slices of at most `size` that make up `count`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def in_threads(bounded: Callable[[PartT], FoundT], some: Sequence[PartT]) -> list[FoundT]:
    """`bounded` of each part, in as many threads as this process has for compiled code."""
    # OpenBLAS can raise the flag on finite numbers (numpy issue 24067), and NaN proves nothing.
    quiet = np.errstate(over="ignore", invalid="ignore")(bounded)
    if len(some) == 1 or numba.config.NUMBA_NUM_THREADS == 1:
        return [quiet(part) for part in some]
    return list(_threads().map(quiet, some))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS)
