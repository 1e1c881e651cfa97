"""Commands ended at random moments and begun again, and what is left: `python -m tests.kills`.

Each trial is a project folder of its own. A command is ended at a moment drawn from its usual life,
by SIGKILL, by SIGTERM or by Ctrl-C as a terminal sends it; twenty seconds later its processes must
be gone, its runs marked and its files whole. Then the same command runs to its end: it must say
what an undisturbed one says, and leave as they were the verdicts that were stored before.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from onnx.helper import make_node
from rich.console import Console
from rich.table import Table

from flows.processes import environment
from tests.command import CERTIFLOW, clean_environment, with_settings
from tests.left_behind import broken_files, processes, stored_verdicts, unmarked_runs
from tests.model_files import saved_onnx
from tests.property_files import saved_property

MARK = "CERTIFLOW_KILLS_TRIAL"  # in the environment of all that a trial starts
GONE_SECONDS = 20.0  # after the signal
LIFE_SECONDS = 300.0  # of a command that nothing disturbs
LEAST_SECONDS = 0.1
SMOKE = ("--conf", "conf/smoke.yaml")
MODEL = ("--model", "digits.keras", "--data", "digits", "--workers", "1", "--timeout", "5")


@dataclass(frozen=True)
class Question:
    """A command, and what it found in a project's folder."""

    arguments: tuple[str, ...]
    found: Callable[[Path], list[tuple[object, ...]]]


@dataclass
class Trial:
    """A command ended by `number`, `moment` seconds after its start, and repeated."""

    question: str
    number: signal.Signals
    moment: float
    was_over: bool = False
    kept: int = 0  # verdicts that were stored when it ended
    gone: float = 0.0  # seconds until its last process was
    wrong: list[str] = field(default_factory=list)


def _newest(table: str, *columns: str) -> Callable[[Path], list[tuple[object, ...]]]:
    def found(project: Path) -> list[tuple[object, ...]]:
        newest = max(project.glob(f"runs/*/tables/{table}"))
        return sorted(pd.read_csv(newest)[list(columns)].itertuples(index=False, name=None))

    return found


def _results(project: Path) -> list[tuple[object, ...]]:
    columns = ["network", "property", "verdict"]
    rows = pd.read_csv(project / "results.csv")[columns]
    return sorted(rows.itertuples(index=False, name=None))


VERDICTS = _newest("verification.csv", "sample_index", "epsilon", "verdict")
EPSILONS = tuple(f"--epsilon={epsilon}" for epsilon in (0.05, 0.1, 0.15, 0.2))
QUESTIONS = {
    "run": Question(("run", *SMOKE), VERDICTS),
    "verify --data": Question(("verify", *MODEL, "--samples=24", *EPSILONS), VERDICTS),
    "verify --csv": Question(
        ("verify", "--csv=instances.csv", "--results=results.csv", "--workers=1"), _results
    ),
    "radius": Question(
        ("radius", *MODEL, "--samples=24", "--tolerance=0.01"),
        _newest("critical_radius.csv", "sample_index"),
    ),
    "retrain": Question(("retrain", *SMOKE), VERDICTS),
}


def prepare(folder: Path) -> None:
    """The files that the questions are about."""
    environment.prepare(verbose=False)
    environment.load_keras()

    from tasks.core.sources import catalogue
    from tasks.core.training import loop
    from tasks.core.training.training_settings import TrainingSettings

    settings = TrainingSettings(hidden=(32,), epochs=10, learning_rate=0.003)
    loop.train(catalogue.load("digits", Path("unused")), settings, seed=0).model.save(
        folder / "digits.keras"
    )
    generator = np.random.default_rng(3)
    weights = {
        name: generator.normal(size=shape).astype(np.float32)
        for name, shape in {"first": (8, 60), "second": (60, 60), "third": (60, 1)}.items()
    }
    nodes, before = [], "x"
    for name in weights:
        nodes.append(make_node("MatMul", [before, name], [f"{name}_sums"], name=name))
        nodes.append(make_node("Relu", [f"{name}_sums"], [f"{name}_out"], name=f"{name}_relu"))
        before = f"{name}_out"
    nodes[-1] = make_node("Identity", ["third_sums"], ["y"], name="end")
    saved_onnx(folder, nodes, weights, shape=(1, 8))
    lines = []
    for number in range(16):
        threshold = -540.0 + 10.0 * number  # fractions of a second each
        text = f"(<= Y_0 {threshold!r})"
        saved_property(folder / f"{number}.vnnlib", text, box=((-1.0, 1.0),) * 8, num_outputs=1)
        lines.append(f"model.onnx,{number}.vnnlib,60\n")
    (folder / "instances.csv").write_text("".join(lines))


class Laboratory:
    """Trials in `folder`, beside what undisturbed commands find, and how long they take."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._environment = folder, clean_environment(folder / "prefect")
        self._files = folder / "files"
        self._files.mkdir()
        prepare(self._files)
        self._found: dict[str, list[tuple[object, ...]]] = {}
        self._seconds: dict[str, float] = {}

    def observe(self, name: str) -> float:
        """Runs a question's command undisturbed; its seconds."""
        project, started = self._project(), time.monotonic()
        code, output = self._run(name, project)
        assert code == 0, output
        self._seconds[name] = time.monotonic() - started
        self._found[name] = QUESTIONS[name].found(project)
        assert not broken_files(project), broken_files(project)
        return self._seconds[name]

    def trial(self, name: str, number: signal.Signals, share: float) -> Trial:
        """Ends the question's command when that share of its usual life is over; repeats it."""
        trial = Trial(name, number, max(LEAST_SECONDS, share * self._seconds[name]))
        project, mark = self._project(), uuid.uuid4().hex
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                [*CERTIFLOW, *QUESTIONS[name].arguments],
                cwd=project,
                env=self._environment | {MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                process.wait(trial.moment)
                trial.was_over = True
            except subprocess.TimeoutExpired:
                _end(process, trial)
            _await_the_end(mark, trial)
            output.seek(0)
            if "Traceback" in output.read():
                output.seek(0)
                trial.wrong.append("a traceback: " + output.read().splitlines()[-1])
        trial.wrong += broken_files(project) + unmarked_runs(project)
        before = stored_verdicts(project)
        trial.kept = len(before)
        code, said = self._run(name, project)
        if code:
            trial.wrong.append(f"repeated, exit code {code}: {said[-200:]}")
            return trial
        after = stored_verdicts(project)
        lost = sum(key not in after for key in before)
        again = sum(key in after and after[key] != row for key, row in before.items())
        if lost or again:
            trial.wrong.append(f"repeated: {lost} verdicts lost, {again} computed again")
        if QUESTIONS[name].found(project) != self._found[name]:
            trial.wrong.append("repeated: it finds something else than an undisturbed one")
        trial.wrong += [f"repeated: {each}" for each in broken_files(project)]
        return trial

    def _run(self, name: str, project: Path) -> tuple[int, str]:
        result = subprocess.run(
            [*CERTIFLOW, *QUESTIONS[name].arguments],
            cwd=project,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=LIFE_SECONDS,
            check=False,
        )
        return result.returncode, result.stderr

    def _project(self) -> Path:
        project = with_settings(Path(tempfile.mkdtemp(dir=self._folder)))
        for file in self._files.iterdir():
            (project / file.name).symlink_to(file)
        return project


def _end(process: subprocess.Popen[bytes], trial: Trial) -> None:
    """Sends the signal; a process that it does not end within `GONE_SECONDS` is killed."""
    if trial.number is signal.SIGINT:
        os.killpg(process.pid, trial.number)  # as a terminal does
    else:
        process.send_signal(trial.number)
    started = time.monotonic()
    try:
        code = process.wait(GONE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        trial.wrong.append(f"not ended by {trial.number.name}")
        return
    trial.gone = time.monotonic() - started
    # 130, or before `main` has begun the signal itself
    if trial.number is not signal.SIGKILL and code not in (130, -trial.number):
        trial.wrong.append(f"exit code {code}")


def _await_the_end(mark: str, trial: Trial) -> None:
    started = time.monotonic()
    while (alive := processes(mark)) and time.monotonic() - started < GONE_SECONDS:
        time.sleep(0.2)
    trial.gone += time.monotonic() - started
    trial.wrong += [f"alive: {command}" for command in alive]


def main(
    kills: Annotated[int, typer.Option(help="Trials with SIGKILL.")] = 30,
    terms: Annotated[int, typer.Option(help="Trials with SIGTERM.")] = 10,
    interrupts: Annotated[int, typer.Option(help="Trials with Ctrl-C.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Kept; else a temporary one.")] = None,
) -> None:
    """Prints a line for each trial, and a table; exit code 1 when something was wrong."""
    # A shell's background job ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked = {signal.SIGKILL: kills, signal.SIGTERM: terms, signal.SIGINT: interrupts}
    draw, console, trials = random.Random(seed), Console(highlight=False), list[Trial]()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        laboratory = Laboratory(Path(name))
        for question in QUESTIONS:
            console.print(f"{question}: {laboratory.observe(question):.1f} s undisturbed")
        for number, count in asked.items():
            for question in islice(cycle(QUESTIONS), count):
                trial = laboratory.trial(question, number, draw.random())
                trials.append(trial)
                console.print(
                    f"{question:<14} {number.name:<8} after {trial.moment:5.1f} s, gone in "
                    f"{trial.gone:4.1f} s, {trial.kept:3d} kept"
                    f"{', was over' if trial.was_over else ''}  {'; '.join(trial.wrong) or 'ok'}",
                    markup=False,
                    soft_wrap=True,
                )
    console.print(summary(trials))
    if any(trial.wrong for trial in trials):
        sys.exit(1)


def summary(trials: list[Trial]) -> Table:
    """Of each command and signal: trials, those that were over before, the slowest end, faults."""
    table = Table()
    for column in ("command", "signal", "trials", "was over", "gone within, s", "kept", "wrong"):
        table.add_column(column, justify="left" if column in ("command", "signal") else "right")
    for question, number in dict.fromkeys((each.question, each.number) for each in trials):
        chosen = [each for each in trials if (each.question, each.number) == (question, number)]
        numbers = [
            len(chosen),
            sum(each.was_over for each in chosen),
            round(max(each.gone for each in chosen), 1),
            sum(each.kept for each in chosen),
            sum(bool(each.wrong) for each in chosen),
        ]
        table.add_row(question, number.name, *map(str, numbers))
    return table


if __name__ == "__main__":
    typer.run(main)
