"""Answers of the exact oracle that take long, kept in a file with the digest of their question.

The digest covers the oracle's code and every number of the question: whatever moves is asked anew.
A kept point must attain the kept value, which shows that the minimum is no greater; that it is no
less is computed again for a share of the questions, another one each day.

`pytest --keep-answers` replaces the file by what was asked and took long.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import UnsafeRegion

PATH = Path(__file__).with_name("kept_answers.json")
ORACLE = PATH.with_name("oracle.py")
LONG_SECONDS = 0.015
TOLERANCE = 1e-5  # HiGHS keeps its constraints to 1e-6, each of them
ANEW = 16  # one in so many kept answers is computed again

Answer = tuple[float, FloatArray]
Kept = dict[str, tuple[float, list[float]]]


class KeptAnswers:
    """The file's answers, and those of this process that took long."""

    def __init__(self, path: Path = PATH) -> None:
        self.path = path
        found = json.loads(path.read_text()) if path.exists() else {}
        self.oracle: str = found.pop("oracle", "")
        self.kept: Kept = found
        self.long: Kept = {}
        self.turn = datetime.now(UTC).toordinal() % ANEW  # whose answers are computed again

    def answer(
        self,
        network: ReluNetwork,
        region: UnsafeRegion,
        compute: Callable[[ReluNetwork, UnsafeRegion], Answer],
    ) -> Answer:
        """The kept answer, or `compute`'s.

        Raises:
            AssertionError: a kept answer is wrong.
        """
        key = digest(network, region)
        if key in self.kept:
            value, point = self.kept[key][0], np.array(self.kept[key][1])
            _check_attained(network, region, value, point)
            if int(key, 16) % ANEW == self.turn:
                least = compute(network, region)[0]
                assert abs(least - value) <= TOLERANCE * max(1.0, abs(value)), f"less is {least}"
            return value, point
        started = time.process_time()
        value, point = compute(network, region)
        if time.process_time() - started > LONG_SECONDS:
            self.long[key] = value, np.round(point, 9).tolist()
        return value, point

    def save(self) -> None:
        """Keeps what took long; what was not asked is dropped."""
        lines = [
            f"{json.dumps(key)}: {json.dumps(kept)}" for key, kept in sorted(self.long.items())
        ]
        first = f'"oracle": "{oracle_digest()}"'
        self.path.write_text("{\n" + ",\n".join([first, *lines]) + "\n}\n")


def _check_attained(
    network: ReluNetwork, region: UnsafeRegion, value: float, point: FloatArray
) -> None:
    inside = np.clip(point, region.box.lower[0], region.box.upper[0])
    assert np.abs(inside - point).max() <= TOLERANCE
    excess = float(region.excess(network(inside[None]))[0])
    assert abs(excess - value) <= TOLERANCE * max(1.0, abs(value)), f"kept {value}, it is {excess}"


def oracle_digest() -> str:
    """Of the code that answers: its answers are of no use to another."""
    return sha256(ORACLE.read_bytes()).hexdigest()[:24]


def digest(network: ReluNetwork, region: UnsafeRegion) -> str:
    """Of the question and of the code that answers it."""
    arrays = [region.box.lower, region.box.upper, region.rows, region.offsets]
    for layer in network.layers:
        arrays += [layer.weight, layer.bias]
    arrays += network.linear
    found = sha256(ORACLE.read_bytes())
    for array in arrays:
        found.update(
            f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        )
    return found.hexdigest()[:24]
