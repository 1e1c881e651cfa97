"""The verdicts of a sample as they come: kept in order, in the store, and recalled from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import LinfBall, Property
from tasks.core.verdicts import Engine, Verdict, VerificationResult
from tasks.core.verification.ball_sample import (
    AttackStrength,
    Sample,
    SolverLimits,
    result_of,
    with_counterexample,
)


class Recorder:
    """The results so far; puts new ones into the store and takes known ones from it."""

    def __init__(
        self,
        runtime: Runtime,
        network: ReluNetwork,
        sample: Sample,
        engine: Engine,
        attack: AttackStrength,
        limits: SolverLimits,
        store: VerdictStore | None,
        on_result: Callable[[VerificationResult], None],
    ) -> None:
        self.runtime, self.network, self.sample = runtime, network, sample
        self.store, self.on_result = store, on_result
        self.engine = (
            f"{engine} v{ENGINE_VERSION} timeout {limits.timeout_seconds:g} "
            f"pgd {attack.num_steps}x{attack.num_restarts} seed {attack.seed}"
        )
        self.found: list[VerificationResult] = []
        self.decided: set[tuple[int, float]] = set()
        self.row_of = {int(index): row for row, index in enumerate(sample.indices)}

    def note(self, decided: Iterator[VerificationResult]) -> None:
        """Adds results that cost nothing to know, so that the store need not hold them."""
        for result in decided:
            self._add(result)

    def record(self, decided: Iterator[VerificationResult]) -> None:
        """Adds results as they come, and stores them."""
        for result in decided:
            self._add(result)
            if self.store is not None and result.verdict is not Verdict.ERROR:
                self.store.put(self._key(result.sample_index, result.epsilon), _stored(result))

    def recall(self, rows: NDArray[np.intp], epsilons: Sequence[float]) -> None:
        """Adds what the store knows; a stored counterexample must break the model again."""
        if self.store is None:
            return
        indices = [int(self.sample.indices[row]) for row in rows]
        keys = {
            self._key(index, epsilon): (index, epsilon) for index in indices for epsilon in epsilons
        }
        for key, stored in self.store.get_many(list(keys)).items():
            index, epsilon = keys[key]
            result = _recalled(self.runtime, self.sample, self.row_of[index], epsilon, stored)
            if result is not None:
                self._add(result)

    def missing(self, rows: NDArray[np.intp], epsilon: float) -> NDArray[np.intp]:
        """Those of `rows` without a result at `epsilon`."""
        indices = self.sample.indices
        open_rows = [row for row in rows if (int(indices[row]), epsilon) not in self.decided]
        return np.array(open_rows, dtype=np.intp)

    def _add(self, result: VerificationResult) -> None:
        self.found.append(result)
        self.decided.add((result.sample_index, result.epsilon))
        self.on_result(result)

    def _key(self, sample_index: int, epsilon: float) -> VerdictKey:
        row = self.row_of[sample_index]
        ball = LinfBall.around(self.sample.images[row][None], epsilon)
        label = int(self.sample.labels[row])
        prop = Property.robustness(ball, label, self.network.num_outputs)
        return VerdictKey(self.network.sha256, prop.sha256, self.engine)


def _stored(result: VerificationResult) -> StoredVerdict:
    point = result.counterexample
    return StoredVerdict(
        verdict=result.verdict,
        decided_by=result.decided_by,
        seconds=float(result.seconds),
        margin=result.margin,
        reason=result.reason,
        target=result.target,
        deployed=result.deployed,
        witness=result.witness,
        stage_seconds=dict(result.stage_seconds),
        points=None if point is None else point.astype(np.float64).reshape(1, -1),
    )


def _recalled(
    runtime: Runtime, sample: Sample, row: int, epsilon: float, stored: StoredVerdict
) -> VerificationResult | None:
    result = result_of(sample, row, epsilon, stored.verdict, stored.decided_by, stored.seconds)
    result = replace(
        result,
        target=stored.target,
        margin=stored.margin,
        reason=stored.reason,
        deployed=stored.deployed,
        witness=stored.witness,
        stage_seconds=stored.stage_seconds,
    )
    if stored.verdict is not Verdict.FALSIFIED:
        return result
    if stored.points is None:
        return None
    replayed = with_counterexample(runtime, result, sample.images[row], stored.points[0])
    return replayed if replayed.verdict is Verdict.FALSIFIED else None
