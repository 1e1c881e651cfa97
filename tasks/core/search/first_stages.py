"""The ladder's first stages, batched over the balls of one radius: attack, intervals, CROWN.

They take milliseconds a ball where a solver process takes tens: most balls never get there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

from tasks.core.arrays import FloatArray, Inputs, IntArray
from tasks.core.attacks.gradient import Attacked, pgd
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.linear import (
    Method,
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.bounds.relaxations import Bounds
from tasks.core.models.runtimes import Classifier, Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import margin_rows
from tasks.core.search.answer import Answer, Known
from tasks.core.verdicts import DecidedBy, Verdict

BATCH = 1000  # boxes whose bounds are held at a time
# Of hidden bounds handed on, all radii together: a ball's are 2 kB for two small dense layers, some
# 300 kB for a convolutional network. They always cost more to compute than to send; but all balls
# wait at once, and ten thousand would take 3 GB. What is beyond goes without, and the ladder
# computes it again.
HANDED_ON_BYTES = 2**28


@dataclass(frozen=True)
class AttackStrength:
    """PGD's steps, restarts and seed."""

    num_steps: int
    num_restarts: int
    seed: int

    def pgd(
        self,
        classifier: Classifier,
        inputs: Inputs,
        labels: IntArray,
        perturbation: Perturbation,
        epsilon: float,
    ) -> Attacked:
        """`gradient.pgd` of this strength."""
        return pgd(
            classifier,
            inputs,
            labels,
            perturbation,
            epsilon,
            num_steps=self.num_steps,
            num_restarts=self.num_restarts,
            seed=self.seed,
        )


class FirstStages:
    """Of points that `runtime` classifies right, at one radius after another."""

    def __init__(
        self,
        runtime: Runtime,
        network: ReluNetwork,
        inputs: Inputs,
        labels: IntArray,
        perturbation: Perturbation,
        attack: AttackStrength,
    ) -> None:
        self.runtime, self.network, self.attack = runtime, network, attack
        self.inputs, self.labels, self.perturbation = inputs, labels, perturbation
        # By point, with the radius at which it broke: the same breaks all greater balls as well.
        self.broken: dict[int, tuple[float, FloatArray]] = {}
        self.spare_bytes = HANDED_ON_BYTES

    def run(self, points: Sequence[int], epsilon: float) -> Iterator[tuple[int, Answer | Known]]:
        """Each of the points, places in `inputs`, once: its answer, or what is known of it.

        `robust` is sound for `network`; a point of `falsified` lies in the ball, and `runtime`
        mislabels it when it is evaluated alone.
        """
        rows = np.array(points, dtype=np.intp)
        seconds = self._attack(rows, epsilon)
        left = self._unbroken(rows, epsilon)
        for row in np.setdiff1d(rows, left).tolist():
            yield row, _falsified(self.broken[row][1], seconds)
        most = max(1, BATCH // self.perturbation.most_alternatives)
        for start in range(0, len(left), most):
            yield from self._bound(left[start : start + most], epsilon, seconds)

    def _attack(self, rows: IntArray, epsilon: float) -> dict[str, float]:
        """FGSM, then PGD, on points that no smaller ball has broken; the seconds of each ball.

        Only a Keras model has gradients here; others are attacked in float64 by the ladder.
        """
        if not isinstance(self.runtime, Classifier):
            return {}
        started = monotonic()
        left = self._unbroken(rows, epsilon)
        found = self.attack.pgd(
            self.runtime, self.inputs[left], self.labels[left], self.perturbation, epsilon
        )
        for row, point in zip(left[found.broken], found.points[found.broken], strict=True):
            # what flips in a batch but not alone is no counterexample
            if self.runtime.predictions(point[None])[0] != self.labels[row]:
                self.broken[int(row)] = epsilon, point.reshape(1, -1).astype(np.float64)
        return {"attack": (monotonic() - started) / max(len(rows), 1)}

    def _unbroken(self, rows: IntArray, epsilon: float) -> IntArray:
        """Those of the points that nothing known breaks at the radius."""
        is_left = [self.broken.get(row, (np.inf,))[0] > epsilon for row in rows.tolist()]
        return rows[np.array(is_left, dtype=bool)]

    def _bound(
        self, rows: IntArray, epsilon: float, seconds: dict[str, float]
    ) -> Iterator[tuple[int, Answer | Known]]:
        """By intervals, then what they leave open by CROWN; a ball is proved in all its boxes."""
        boxes, owners = self.perturbation.boxes(self.inputs[rows], epsilon)
        lower = np.full((len(boxes), self.network.num_outputs - 1), -np.inf)
        left, hidden = np.arange(len(rows)), list[Bounds]()
        for method, stage in _BOUNDS:
            places = np.flatnonzero(np.isin(owners, left))  # of the boxes that are bounded now
            if len(left) == 0:
                return
            started = monotonic()
            box, mine = boxes[places], owners[places]
            margins = margin_rows(self.labels[rows[mine]], self.network.num_outputs)
            hidden = preactivation_bounds(self.network, box, method)
            lower[places] = np.maximum(lower[places], self._margins(box, margins, hidden, method))
            errors = row_error(self.network, margins, hidden, box)
            seconds = seconds | {method: (monotonic() - started) / len(left)}
            closed = (lower[places] > 0).all(axis=1)
            still_open = np.unique(mine[~closed])
            for index in np.setdiff1d(left, still_open).tolist():
                at = slice(*np.searchsorted(mine, [index, index + 1]))
                least = lower[places[at]]
                yield int(rows[index]), _robust(least, errors[at], boxes, stage, seconds)
            kept = np.isin(mine, still_open)
            left, hidden = still_open, [bounds[kept] for bounds in hidden]
        whose = owners[np.isin(owners, left)]
        for index in left.tolist():
            at = slice(*np.searchsorted(whose, [index, index + 1]))
            handed_on = self._handed_on(hidden, at.start) if at.stop - at.start == 1 else None
            yield int(rows[index]), Known(lower[owners == index].ravel(), handed_on, seconds)

    def _margins(
        self, ball: Box, margins: FloatArray, hidden: list[Bounds], method: Method
    ) -> FloatArray:
        if method == "interval":
            return interval_lower_bounds(self.network, margins, hidden, ball)
        depth = len(self.network.layers) - 1
        return linear_lower_bounds(self.network, depth, margins, hidden, ball)

    def _handed_on(self, hidden: Sequence[Bounds], place: int) -> list[Bounds] | None:
        """A copy of one ball's, which does not keep the batch alive, while there is room."""
        size = sum(2 * each.lower[place].nbytes for each in hidden)
        if size > self.spare_bytes:
            return None
        self.spare_bytes -= size
        at = slice(place, place + 1)
        return [Bounds(each.lower[at].copy(), each.upper[at].copy()) for each in hidden]


_BOUNDS: tuple[tuple[Method, DecidedBy], ...] = (
    ("interval", DecidedBy.INTERVAL),
    ("crown", DecidedBy.CROWN),
)


def _falsified(point: FloatArray, seconds: dict[str, float]) -> Answer:
    return Answer(Verdict.FALSIFIED, DecidedBy.ATTACK, point, stage_seconds=seconds)


def _robust(
    lower: FloatArray,
    errors: FloatArray,
    boxes: Box,
    stage: DecidedBy,
    seconds: dict[str, float],
) -> Answer:
    return Answer(
        Verdict.ROBUST,
        stage,
        np.empty((0, boxes.lower.shape[1])),
        margin=float(lower.min()),
        deployed=bool((lower > errors).all()),
        stage_seconds=seconds,
    )
