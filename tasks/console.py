"""What a user sees while stages run: bars on a terminal, plain lines in a pipe, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from tasks.interrupts import is_interrupted

console = Console(stderr=True, highlight=False)
LINE_SECONDS = 15.0  # between two lines of one stage in a pipe


def warn(text: str) -> None:
    """A warning that cannot be overlooked."""
    console.print(f"WARNING  {text}", style="bold yellow", markup=False, soft_wrap=True)


def say(title: str, text: str) -> None:
    """A line about something that takes no time to show, in the stages' column."""
    console.print(f"{title:<9} {text}", markup=False, soft_wrap=True)


@dataclass
class StageProgress:
    """One stage's progress; `note` says what matters so far."""

    progress: Progress | None
    task_id: int
    title: str
    total: int | None
    done: int = 0
    note: str = ""
    last_line: float = 0.0

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """`count` more units are done."""
        self.update(self.done + count, self.total, note)

    def update(self, done: int, total: int | None, note: str | None = None) -> None:
        """`done` of `total` units are done."""
        if is_interrupted():
            raise KeyboardInterrupt
        self.done, self.total = done, total
        self.note = self.note if note is None else note
        if self.progress is not None:
            self.progress.update(
                self.task_id,  # type: ignore[arg-type]
                completed=done,
                total=total,
                note=self.note,
            )
        elif monotonic() - self.last_line > LINE_SECONDS:
            self.print_line()

    def print_line(self, ending: str = "") -> None:
        """The stage as a plain line."""
        self.last_line = monotonic()
        count = f"{self.done}/{self.total}" if self.total else f"{self.done}"
        line = "  ".join(
            part for part in (f"{self.title:<9} {count:>13}", self.note, ending) if part
        )
        console.print(line, markup=False, soft_wrap=True)


@contextmanager
def stage(title: str, total: int | None) -> Iterator[StageProgress]:
    """Shows a stage of `total` units while the block runs."""
    started = monotonic()
    if not console.is_terminal:
        plain = StageProgress(None, 0, title, total, last_line=started)
        yield plain
        plain.print_line(f"({monotonic() - started:.1f} s)")
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task_id = progress.add_task(title, total=total, note="")
        try:
            yield StageProgress(progress, int(task_id), title, total)
        except Exception:
            progress.live.transient = True  # the error says it; another attempt has its own line
            raise
