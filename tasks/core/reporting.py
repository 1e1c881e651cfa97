"""Which stage a solver is in, for whoever may have to end its process in the midst of one."""

from __future__ import annotations

from collections.abc import Callable


class _Listener:
    """Of this process; nobody by default."""

    def __init__(self) -> None:
        self.hear: Callable[[str], None] = lambda stage: None


_listener = _Listener()


def report_to(hear: Callable[[str], None]) -> None:
    """From now on `hear` is told of every stage that is entered."""
    _listener.hear = hear


def entered(stage: str) -> None:
    """Tells that a stage begins."""
    _listener.hear(stage)
