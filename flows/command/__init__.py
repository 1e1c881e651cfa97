"""The `certiflow` command line: what is typed, its options and what they mean.

May import every package, and imports what a command runs when it runs it; nothing imports it.
Guarantees: exit code 0 is done, 1 could not (one line says why), 2 wrong usage; no traceback.
"""

import sys
from types import TracebackType


def _tell_no_interrupt(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


# The command and the processes that it spawns import this before anything else of ours. Ctrl-C,
# which a terminal sends to all of them, is the command's to tell, once it has begun.
sys.excepthook = _tell_no_interrupt
