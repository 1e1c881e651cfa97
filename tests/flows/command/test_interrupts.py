"""An interrupt ends a command whatever library it comes upon."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from flows.command import cli, standard_output
from tasks import console, interrupts
from tasks.interrupts import ENDING, uninterrupted


@pytest.fixture(autouse=True)
def handled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that a test switches stays."""
    monkeypatch.setattr(interrupts, "_interruptions", [])
    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGTERM, interrupts.interrupt)
    monkeypatch.setattr(standard_output, "tell_failures", lambda: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_one_that_a_library_swallowed_comes_again_with_the_next_progress() -> None:
    with console.stage("train", 3) as progress:
        progress.advance()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)  # and TensorFlow goes on
        with pytest.raises(KeyboardInterrupt):
            progress.advance()


def test_none_comes_while_native_code_is_imported() -> None:
    steps = []

    def load() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            steps.append("imported")

    with pytest.raises(KeyboardInterrupt):
        load()
    assert steps == ["imported"]
    assert signal.getsignal(signal.SIGTERM) is interrupts.interrupt


def task_begins() -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt as error:
        raise ValueError("Task run is not set") from error


@pytest.mark.parametrize("begins", [task_begins, lambda: signal.raise_signal(signal.SIGTERM)])
def test_what_a_library_makes_of_it_is_no_traceback(
    begins: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor one that comes before the command has begun."""
    monkeypatch.setattr(cli, "app", begins)
    monkeypatch.setattr(cli.gc, "set_threshold", lambda *numbers: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == cli.INTERRUPTED
    assert capsys.readouterr().err.startswith("Interrupted; what was done so far is kept.")
