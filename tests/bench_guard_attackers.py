"""Attackers who see nothing but answers: `python -m tests.bench_guard_attackers --model MODEL`.

In a project's folder, of whose store it uses a copy, with the extra `bench`. HopSkipJump (Chen et
al. 2020) and Square (Andriushchenko et al. 2020) of the Adversarial Robustness Toolbox ask a guard
that blocks who is alarmed about; each attack is a client of its own.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.core.arrays import Float32Array
from tasks.core.data.datasets import Dataset
from tasks.core.sources.catalogue import load
from tests.guarded import Guard, guarding
from tests.load import CLIENT_HEADER

CANDIDATES = 400  # test inputs that attackers choose from
MOST_QUERIES = 2000  # of one attack that is never seen
RESAMPLED, SPREAD = 3, 0.01  # times that a flagged query is asked again, and how far from it


class SeenError(Exception):
    """The client is blocked."""


@dataclass
class Client:
    """What an attacker's queries go through, one input in each, and what becomes of them."""

    guard: Guard
    name: str
    shape: tuple[int, ...]
    num_classes: int
    center: Float32Array
    label: int
    epsilon: float
    generator: np.random.Generator
    queries: int = 0
    broken: bool = False
    nearest: float = field(default=np.inf)

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """The label's margin in its place, of the first query near each input that is accepted."""
        rows = np.zeros((len(inputs), self.num_classes), dtype=np.float32)
        for row, point in zip(rows, inputs, strict=True):
            answer = self._asked(point)
            for _ in range(RESAMPLED):
                if answer["decision"] == "accepted":
                    break
                moved = point + self.generator.uniform(-SPREAD, SPREAD, point.shape)
                answer = self._asked(np.clip(moved, 0, 1))
            row[answer["label"]] = 1 + max(answer["margin"], 0)
        return rows

    def _asked(self, point: np.ndarray) -> dict[str, Any]:
        if self.queries >= MOST_QUERIES:
            raise StopIteration
        point = np.asarray(point, dtype=np.float32).reshape(1, *self.shape)
        response = self.guard.post(
            "/predict", {"inputs": point.tolist()}, **{CLIENT_HEADER: self.name}
        )
        if response.status_code == 403:
            raise SeenError
        assert response.status_code == 200, response.text
        self.queries += 1
        answer: dict[str, Any] = response.json()["answers"][0]
        if answer["decision"] == "accepted" and answer["label"] != self.label:
            distance = float(np.abs(point[0] - self.center).max())
            self.nearest = min(self.nearest, distance)
            self.broken = self.broken or distance <= self.epsilon
        return answer


Attack = Callable[[Any, Float32Array, int, Float32Array, float], None]


def hop_skip_jump(from_another: bool) -> Attack:
    """From random inputs, or from a test input of another class."""

    def attack(
        model: Any, center: Float32Array, label: int, other: Float32Array, epsilon: float
    ) -> None:
        from art.attacks.evasion import HopSkipJump

        search = HopSkipJump(model, norm=np.inf, max_iter=50, verbose=False)
        start = other[None] if from_another else None
        search.generate(center[None], np.eye(model.nb_classes)[[label]], x_adv_init=start)

    return attack


def square(
    model: Any, center: Float32Array, label: int, other: Float32Array, epsilon: float
) -> None:
    """At twice epsilon: within it there is nothing to find."""
    from art.attacks.evasion import SquareAttack

    search = SquareAttack(model, eps=2 * epsilon, max_iter=MOST_QUERIES, verbose=False)
    search.generate(center[None], np.eye(model.nb_classes)[[label]])


ATTACKS: dict[str, Attack] = {
    "HopSkipJump from noise": hop_skip_jump(False),
    "HopSkipJump from another class": hop_skip_jump(True),
    "Square": square,
}


def attacked(
    guard: Guard, name: str, data: Dataset, epsilon: float, points: int, right: np.ndarray
) -> list[tuple[Client, bool]]:
    """Each client, and whether it was seen."""
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    shape = (*data.input_shape, 1)[:3]  # with a channel
    generator, found = np.random.default_rng(0), []
    for row in right[:points]:
        center, label = data.test_inputs[row], int(data.test_labels[row])
        other = data.test_inputs[generator.choice(right[data.test_labels[right] != label])]
        client = Client(
            guard,
            f"{name} {row}",
            data.input_shape,
            data.num_classes,
            center,
            label,
            epsilon,
            np.random.default_rng(int(row)),
        )
        model = BlackBoxClassifierNeuralNetwork(
            client.scores, shape, data.num_classes, channels_first=False, clip_values=(0.0, 1.0)
        )
        seen = False
        try:
            ATTACKS[name](model, center.reshape(shape), label, other.reshape(shape), epsilon)
        except SeenError:
            seen = True
        except StopIteration:
            pass
        found.append((client, seen))
    return found


def bench(model: str, epsilon: float, points: int, console: Console) -> None:
    """Of each attack on so many points, the queries to the alarm, and what is accepted wrongly."""
    table = Table(title=f"black boxes over HTTP, {points} points each")
    for column in ("attack", "seen", "queries, median", "most", "within epsilon", "nearest"):
        table.add_column(column, justify="left" if column == "attack" else "right")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        shutil.copy("mlflow.db", project)
        settings = {
            "model": model,
            "epsilon": epsilon,
            "client_header": CLIENT_HEADER,
            "action": "block",
        }
        with guarding(project, settings) as guard:
            data = load(guard.client.get("/live").json()["dataset"], Path("data"))
            inputs, labels = data.test_inputs[:CANDIDATES], data.test_labels[:CANDIDATES]
            answers = guard.predict(inputs)["answers"]
            right = np.flatnonzero([each["label"] for each in answers] == labels)
            for name in ATTACKS:
                found = attacked(guard, name, data, epsilon, points, right)
                queries = [client.queries for client, seen in found if seen]
                table.add_row(
                    name,
                    f"{len(queries)}",
                    f"{np.median(queries):.0f}" if queries else "-",
                    f"{max(queries)}" if queries else "-",
                    f"{sum(client.broken for client, _ in found)}",
                    f"{min(client.nearest for client, _ in found):.3f}",
                )
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--points", type=int, default=100)
    arguments = parser.parse_args()
    bench(arguments.model, arguments.epsilon, arguments.points, Console(highlight=False))
