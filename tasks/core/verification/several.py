"""Properties of several networks at once, decided by whichever form of them is bounded tighter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.side_by_side import side_by_side
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.answer import Answer, combined
from tasks.core.search.ladder import decide
from tasks.core.verdicts import Engine, Verdict
from tasks.core.verification.twin import are_alike, twin


def decide_of_several(
    networks: Sequence[ReluNetwork],
    columns: Sequence[IntArray],
    prop: Property,
    *,
    engine: Engine,
    timeout_seconds: float,
    seed: int,
) -> Answer:
    """As `ladder.decide` of `side_by_side`, with its points, box after box.

    Two networks that are alike are asked as twins where CROWN's bounds say that this is better.
    """
    deadline = time.monotonic() + timeout_seconds
    side = side_by_side(networks, columns)
    answers, seconds = list[Answer](), dict[str, float]()
    for places in prop.by_box():
        part = Property(tuple(prop.unsafe[place] for place in places), prop.domain)
        network = _tighter(networks, columns, side, part) if are_alike(networks) else side
        answer = decide(
            network,
            part,
            engine=engine,
            timeout_seconds=max(deadline - time.monotonic(), 0.0),
            seed=seed,
        )
        for stage, taken in answer.stage_seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + taken
        if answer.verdict is Verdict.ROBUST and network is not side:
            answer = replace(answer, deployed=_holds_in_float32(side, part, answer.margin))
        region = None if answer.region is None else places[answer.region]
        answers.append(replace(answer, region=region))
        if answer.verdict is Verdict.FALSIFIED:
            break
    return replace(combined(answers, side.num_inputs), stage_seconds=seconds)


def _tighter(
    networks: Sequence[ReluNetwork],
    columns: Sequence[IntArray],
    side: ReluNetwork,
    prop: Property,
) -> ReluNetwork:
    """The twins or the networks side by side, of which all regions are better excluded."""
    other = twin(networks, columns, prop.unsafe[0].box)
    return max((side, other), key=lambda network: _least_excluded(network, prop.unsafe))


def _least_excluded(network: ReluNetwork, regions: Sequence[UnsafeRegion]) -> float:
    """CROWN's bound on the excess of the region that it excludes least; one box for all."""
    network = _speaking(network, regions)
    hidden = preactivation_bounds(network, regions[0].box, "crown")
    bounds = [
        linear_lower_bounds(network, len(network.layers) - 1, r.rows, hidden, r.box)[0] + r.offsets
        for r in regions
    ]
    return min(float(np.nan_to_num(each, nan=-np.inf).max()) for each in bounds)


def _holds_in_float32(side: ReluNetwork, prop: Property, margin: float | None) -> bool:
    """Whether a margin exceeds what float32 does to any of the models that are served."""
    network = _speaking(side, prop.unsafe)
    box = prop.unsafe[0].box
    hidden = preactivation_bounds(network, box, "crown")
    rows: FloatArray = np.concatenate([region.rows for region in prop.unsafe])
    return margin is not None and margin > float(row_error(network, rows, hidden, box).max())


def _speaking(network: ReluNetwork, regions: Sequence[UnsafeRegion]) -> ReluNetwork:
    """The network that the regions' rows are about, with its inputs if they are."""
    is_mixed = regions[0].rows.shape[1] > network.num_outputs
    return network.with_inputs() if is_mixed else network
