"""Damaged files, one after another, and what a reader did with them."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

import numpy as np

from tasks.core.errors import CertiflowError
from tests.fuzz.readers import READERS


class Trial:
    """Of one reader; `wrong` holds an example of each kind of what it must not do.

    The files of these are kept in the folder `kept`.
    """

    def __init__(self, name: str, folder: Path, seed: int, kept: Path) -> None:
        self._reader, self._kept = READERS[name], kept
        self._path = folder / self._reader.name
        self._whole = self._reader.whole(folder)
        self._generator = np.random.default_rng(seed)
        self.read = self.refused = 0
        self.slowest = 0.0
        self.wrong: dict[str, str] = {}

    def attempt(self) -> None:
        """Reads one damaged file."""
        content = self._whole[int(self._generator.integers(len(self._whole)))]
        content = self._reader.damage(content, self._generator)
        self._path.write_bytes(content)
        started = time.monotonic()
        try:
            self._reader.read(self._path)
        except CertiflowError as error:
            self.refused += 1
            if "\n" in str(error):
                self._is_wrong("several lines", f"{error}", content)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            self._is_wrong(kind, traceback.format_exc(), content)
        else:
            self.read += 1
        self.slowest = max(self.slowest, time.monotonic() - started)

    def _is_wrong(self, kind: str, what: str, content: bytes) -> None:
        if kind in self.wrong:
            return
        self._kept.mkdir(exist_ok=True)
        example = self._kept / f"{len(self.wrong)}-{self._path.name}"
        example.write_bytes(content)
        self.wrong[kind] = f"{example}: {what[-1500:]}"
