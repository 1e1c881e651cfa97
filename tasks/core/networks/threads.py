"""Parts of a batch in threads: NumPy, BLAS and compiled code let go of Python's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numba
import numpy as np

from tasks.core.networks.blocks import one_thread

PartT = TypeVar("PartT")
FoundT = TypeVar("FoundT")


def parts(count: int, size: int) -> list[slice]:
    """Slices of at most `size` that make up `count`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def in_threads(bounded: Callable[[PartT], FoundT], some: Sequence[PartT]) -> list[FoundT]:
    """`bounded` of each part, in as many threads as this process has for compiled code.

    Within one of these threads one after the other: all would wait for each other.
    """
    # OpenBLAS can raise the flag on finite numbers (numpy issue 24067), and NaN proves nothing.
    quiet = np.errstate(over="ignore", invalid="ignore")(bounded)
    alone = numba.config.NUMBA_NUM_THREADS == 1 or getattr(_here, "is_of_pool", False)
    if alone or len(some) == 1:
        return [quiet(part) for part in some]
    with one_thread():  # of BLAS each; and switched once, not by all of them at a time
        return list(_threads().map(quiet, some))


_here = threading.local()


def _mark() -> None:
    _here.is_of_pool = True


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, initializer=_mark)
