"""What ends a process from outside: Ctrl-C and its kin, heard once and not in a wrong moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_interruptions: list[int] = []  # the signals that asked this process to end


def interrupt(number: int, frame: object) -> NoReturn:
    """A handler of signals that ends the command, by `KeyboardInterrupt`.

    Libraries swallow one now and then, TensorFlow while it traces: the next progress raises anew.
    """
    _interruptions.append(number)
    raise KeyboardInterrupt


def is_interrupted() -> bool:
    """Whether a signal has asked this process to end."""
    return bool(_interruptions)


class _Held:
    """The signals of the main thread while somebody holds them back."""

    holders = 0
    handlers: dict[signal.Signals, Any] = {}  # noqa: RUF012 - one process has one set of handlers
    late: list[int] = []  # noqa: RUF012


def hold() -> None:
    """Holds back what would interrupt this process until `release` was called as often.

    Signals come to the main thread alone: in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _Held.holders += 1
    if _Held.holders == 1:
        _Held.handlers = {number: signal.getsignal(number) for number in ENDING}
        for number in ENDING:
            signal.signal(number, lambda number, frame: _Held.late.append(number))


def release() -> None:
    """Ends one `hold`; the last one lets the signals that came meanwhile through."""
    if threading.current_thread() is not threading.main_thread():
        return
    _Held.holders -= 1
    if _Held.holders == 0:
        late, _Held.late = _Held.late, []
        for number, handler in _Held.handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for each in late:
            signal.raise_signal(each)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds back what would interrupt this process until the block is over."""
    hold()
    try:
        yield
    finally:
        release()
