"""`python -m tests.bench_marabou_agrees --out FILE`: another program's word on our verdicts.

The network of `conf/mnist.yaml` is trained, points of the test set are verified by the ladder, and
the first proofs and counterexamples are written as an ONNX file and VNN-LIB files, a ball a file.
Marabou's own program reads these: not our encoding of networks, not our bounds, not our readers.
What it leaves open of a ball at once, it is asked class by class: `unsat` is then `unsat` of all.
Every counterexample is replayed by onnxruntime on the written network besides.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime

from flows.configuration import load_settings
from flows.processes import environment
from tasks.core.data.datasets import Dataset
from tasks.core.execution.asking import Resources
from tasks.core.models.onnx_export import exported
from tasks.core.models.runtimes import Classifier
from tasks.core.properties.instance_files import Question, write_instances
from tasks.core.properties.specification import Property, adversary_classes
from tasks.core.readers.keras_network import relu_network
from tasks.core.search.first_stages import AttackStrength
from tasks.core.sources.download import fetch
from tasks.core.training import loop
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult
from tasks.core.verification import local_robustness
from tasks.core.verification.balls import Ball, Sample
from tests.marabou_program import asked, program

EPSILONS = (0.01, 0.02)
POINTS, EACH = 400, 20
POINT_SECONDS = 20.0
BALL_SECONDS, CLASS_SECONDS = 60, 600  # of Marabou
MEMORY = 4 * 2**30
EXPECTED = {Verdict.ROBUST: "unsat", Verdict.FALSIFIED: "sat"}


@dataclass(frozen=True)
class Compared:
    """One ball: what the ladder says, and what Marabou's program says of its files."""

    sample_index: int
    epsilon: float
    verdict: str
    decided_by: str
    marabou: str
    queries: int
    seconds: float
    replayed: bool | None  # whether onnxruntime mislabels the counterexample

    @property
    def agrees(self) -> bool:
        return self.marabou == EXPECTED[Verdict(self.verdict)] and self.replayed is not False

    @property
    def contradicts(self) -> bool:
        """What Marabou leaves open says nothing."""
        return (self.marabou in EXPECTED.values() and not self.agrees) or self.replayed is False


def verified(
    classifier: Classifier, data: Dataset, points: int, epsilons: Sequence[float]
) -> list[VerificationResult]:
    """The first points of the test set, in this process's pool."""
    rows = np.arange(points)
    sample = Sample(rows, data.test_inputs[rows], data.test_labels[rows], data.perturbation)
    return local_robustness.verify(
        classifier,
        relu_network(classifier.model),
        sample,
        epsilons,
        engine="ladder",
        attack=AttackStrength(20, 1, 0),
        timeout_seconds=POINT_SECONDS,
        resources=Resources(1, MEMORY),
    )


def chosen(results: Sequence[VerificationResult], each: int) -> list[VerificationResult]:
    """The first proofs, and counterexamples of points classified right, by turns of radius."""
    found = []
    for verdict in EXPECTED:
        of = [r for r in results if r.verdict is verdict and r.decided_by is not DecidedBy.CLEAN]
        by_radius = [[r for r in of if r.epsilon == e] for e in sorted({r.epsilon for r in of})]
        most = max(map(len, by_radius), default=0)
        turns = [group[turn] for turn in range(most) for group in by_radius if turn < len(group)]
        found += turns[:each]
    return found


def compare(
    command: Path,
    classifier: Classifier,
    data: Dataset,
    results: Sequence[VerificationResult],
    ball_seconds: int = BALL_SECONDS,
    class_seconds: int = CLASS_SECONDS,
) -> Iterator[Compared]:
    """What Marabou's program says of each, asked one after another."""
    network = exported(classifier.model).SerializeToString()
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    num_classes = session.get_outputs()[0].shape[1]
    for result in results:
        center = data.test_inputs[result.sample_index]
        ball = Ball(0, result.sample_index, center, result.label, result.epsilon)
        prop, started = ball.robustness(data.perturbation, num_classes), perf_counter()
        others = adversary_classes([result.label], num_classes)[0].tolist()
        classes = [Property((region,)) for region in prop.unsafe]
        if result.target is not None:  # the counterexample's class first
            classes.insert(0, classes.pop(others.index(result.target)))
        questions = [
            ("ball", prop, float(ball_seconds)),
            *((f"class_{place}", each, float(class_seconds)) for place, each in enumerate(classes)),
        ]
        answers = _answers(command, network, questions, num_classes)
        yield Compared(
            result.sample_index,
            result.epsilon,
            result.verdict.value,
            result.decided_by.value,
            _together(answers),
            len(answers),
            round(perf_counter() - started, 3),
            _is_broken(session, result),
        )


def _answers(
    command: Path, network: bytes, questions: Sequence[Question], num_classes: int
) -> list[str]:
    """Of the ball, or, where that stays open, then of its classes up to the first `sat`."""
    answers: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        listed = write_instances(Path(folder), network, questions, num_classes)
        for line in listed.read_text().splitlines():
            onnx, prop, seconds = line.split(",")
            answers.append(asked(command, listed.parent / onnx, listed.parent / prop, int(seconds)))
            if answers[-1] == "sat" or answers == ["unsat"]:
                break
    return answers


def _together(answers: Sequence[str]) -> str:
    """One answer: of the whole where it was decided, else of its parts."""
    if len(answers) == 1:
        return answers[0]
    parts = answers[1:]
    if "sat" in parts:
        return "sat"
    return next((answer for answer in parts if answer != "unsat"), "unsat")


def _is_broken(session: onnxruntime.InferenceSession, result: VerificationResult) -> bool | None:
    if result.counterexample is None:
        return None
    fed = result.counterexample.reshape(1, *session.get_inputs()[0].shape[1:])
    (logits,) = session.run(None, {session.get_inputs()[0].name: fed})
    return int(logits[0].argmax()) != result.label


def summary(compared: Sequence[Compared]) -> dict[str, Any]:
    """Of each of our verdicts, how often Marabou said what."""
    return {
        verdict.value: dict(Counter(c.marabou for c in compared if c.verdict == verdict.value))
        for verdict in EXPECTED
    } | {
        "agree": sum(each.agrees for each in compared),
        "contradict": sum(each.contradicts for each in compared),
        "questions": len(compared),
        "replayed": sum(each.replayed is True for each in compared),
        "class by class": sum(each.queries > 1 for each in compared),
        "seconds": round(sum(each.seconds for each in compared), 1),
    }


def main() -> None:
    """Writes a JSON file and prints it as it comes; ends with 1 at a contradiction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    command = program()
    if command is None:
        raise SystemExit("Marabou's program is not beside this Python: install maraboupy")
    environment.prepare(verbose=False)
    settings, _ = load_settings(Path("conf/mnist.yaml"))
    fetch(settings.data.dataset, settings.data.cache)
    data = settings.data.load()
    classifier = Classifier(loop.train(data, settings.training, settings.seed).model)
    results = chosen(verified(classifier, data, POINTS, EPSILONS), EACH)
    compared = []
    for each in compare(command, classifier, data, results):
        compared.append(each)
        print(json.dumps(vars(each)), flush=True)
    found = summary(compared)
    balls = [vars(each) for each in compared]
    arguments.out.write_text(json.dumps({"summary": found, "balls": balls}, indent=1) + "\n")
    print(json.dumps(found))
    if found["contradict"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
