"""Standard output whose failures are errors like any other: one line, and exit code 1."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from tasks.core.errors import CertiflowError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

DESCRIPTOR = 1


class _Told(io.FileIO):
    """Raises `CertiflowError` when the disk is full; a reader that has gone is no error to tell."""

    def write(self, content: ReadableBuffer, /) -> int:
        try:
            return super().write(content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CertiflowError(
                f"standard output cannot be written ({error.strerror}): send it elsewhere"
            ) from error


def tell_failures() -> None:
    """Makes every later print raise `CertiflowError` when it cannot be written."""
    if not isinstance(sys.stdout, io.TextIOWrapper):  # closed by who started us
        return
    told = _Told(DESCRIPTOR, "wb", closefd=False)
    unbuffered = sys.stdout.write_through  # python -u
    sys.stdout = io.TextIOWrapper(
        told if unbuffered else io.BufferedWriter(told),
        encoding=sys.stdout.encoding,
        errors=sys.stdout.errors,
        line_buffering=sys.stdout.line_buffering,
        write_through=unbuffered,
    )


def flush() -> None:
    """Writes what is still held back; raises as a print does."""
    if sys.stdout is not None:
        sys.stdout.flush()


def give_up() -> None:
    """Drops what is still held back, which the end of the interpreter would try to write again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, DESCRIPTOR)
    os.close(null)
