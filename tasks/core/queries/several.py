"""Properties of several networks at once, decided in whichever form is bounded best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.side_by_side import fed, side_by_side
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.queries.changes import Form, by_changes, plain
from tasks.core.queries.twin import are_alike, twin
from tasks.core.search.answer import Answer, combined
from tasks.core.search.ladder import decide
from tasks.core.verdicts import Engine, Verdict


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

    Inputs that are related are asked about by their changes, and two networks that are alike as
    twins, where CROWN's bounds say that this is better.
    """
    deadline = time.monotonic() + timeout_seconds
    side = side_by_side(networks, columns)
    answers, seconds = list[Answer](), dict[str, float]()
    for places in prop.by_box():
        part = Property(tuple(prop.unsafe[place] for place in places), prop.domain)
        form, network = _best(networks, columns, part)
        answer = decide(
            network,
            form.prop,
            engine=engine,
            timeout_seconds=max(deadline - time.monotonic(), 0.0),
            seed=seed,
        )
        for stage, taken in answer.stage_seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + taken
        if answer.verdict is Verdict.ROBUST:
            answer = replace(answer, deployed=_holds_in_float32(side, part, answer.margin))
        region = None if answer.region is None else places[answer.region]
        joined = form.joined(answer.candidates)
        answers.append(replace(answer, region=region, candidates=joined))
        if answer.verdict is Verdict.FALSIFIED:
            break
    return replace(combined(answers, side.num_inputs), stage_seconds=seconds)


def _best(
    networks: Sequence[ReluNetwork], columns: Sequence[IntArray], prop: Property
) -> tuple[Form, ReluNetwork]:
    """The form, and networks side by side or twins, by which all regions are best excluded."""
    num_outputs = sum(network.num_outputs for network in networks)
    changes = by_changes(columns, prop, num_outputs)
    forms = [form for form in (plain(columns, prop), changes) if form is not None]
    asked = [(form, fed(networks, form.maps)) for form in forms]
    if are_alike(networks):
        asked += [(form, twin(networks, form.maps, form.boxes)) for form in forms]
    if len(asked) == 1:
        return asked[0]
    return max(asked, key=lambda each: _least_excluded(each[1], each[0].prop.unsafe))


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
    """Whether a margin exceeds what float32 does to the models that are served, side by side."""
    network = _speaking(side, prop.unsafe)
    box = prop.unsafe[0].box
    hidden = preactivation_bounds(network, box, "crown")
    rows: FloatArray = np.concatenate([region.rows for region in prop.unsafe])
    return margin is not None and margin > float(row_error(network, rows, hidden, box).max())


def _speaking(network: ReluNetwork, regions: Sequence[UnsafeRegion]) -> ReluNetwork:
    """The network that the regions' rows are about, with its inputs if they are."""
    is_mixed = regions[0].rows.shape[1] > network.num_outputs
    return network.with_inputs() if is_mixed else network
