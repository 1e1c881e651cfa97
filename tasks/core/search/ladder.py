"""The ladder that decides a property: bounds, attack, optimised bounds, branch and bound, Marabou.

Each stage takes what the one before left open; the plain bounds go first, since they cost
milliseconds and spare the attack what they exclude. Attacks only reach unsafe regions, bounds only
exclude them; what neither settles within the time is `unknown` or `timeout`. Marabou finds points,
and witnesses that there is none (see `marabou`): the time that is left then goes to a proof.

For many balls at once the first stages run in batches (`first_stages`), and hand on what is known.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.networks.block_matrix import BlockMatrix
from tasks.core.networks.blocks import Blocks
from tasks.core.networks.matrices import DenseMatrix, Matrix
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.answer import Answer, Known, combined
from tasks.core.search.box_stages import BoxStages, Stage, searches
from tasks.core.verdicts import DecidedBy, Engine, Verdict

FIRST_RESTARTS, MORE_RESTARTS = 1, 9  # before and after the optimised bounds
BRANCHING_SHARE = 0.95  # of the time; the rest is Marabou's
RELUS_ALONE = "Marabou knows ReLUs alone"
MARABOU_OVERSHOOT = 2.0  # by which its own time limit is often overrun


@np.errstate(over="ignore", invalid="ignore")  # infinities and NaN neither prove nor falsify
def decide(
    network: ReluNetwork,
    prop: Property,
    *,
    engine: Engine = "ladder",
    timeout_seconds: float,
    seed: int = 0,
    with_marabou: bool = True,
    known: Known | None = None,
    prove_again: bool = True,
) -> Answer:
    """Whether `prop` holds: sound; complete but for time, near-boundary cases and the engine.

    `known` is what was shown before of the regions of this property, for this very network; its
    hidden bounds, which need all regions to share one box, are not computed again. No proof rests
    on Marabou. In a domain only valid points count: where a search ends at points that are none,
    inputs are split, whole numbers at halves, until nothing else is left.

    The time limit is kept by every stage but Marabou's own, which can overshoot by any amount: run
    this in a process that can be ended from outside, or `with_marabou=False`, which ends the ladder
    before it (and means nothing to the engine `marabou`). What Marabou merely witnesses stays open
    unless `prove_again`.
    """
    if prop.unsafe and prop.unsafe[0].rows.shape[1] > network.num_outputs:
        network = network.with_inputs()
    deadline = time.monotonic() + timeout_seconds
    seconds = {} if known is None else dict(known.stage_seconds)
    answers: list[Answer] = []
    for places in prop.by_box():
        part = None if known is None else replace(known, lower=known.lower[places])
        regions = [prop.unsafe[place] for place in places]
        stages = BoxStages(
            network, regions, deadline, seed, seconds, domain=prop.domain, known=part
        )
        if engine == "marabou":
            answer = _marabou_first(stages, prove_again)
        else:
            answer = _down_the_ladder(stages, engine, with_marabou, prove_again)
        region = None if answer.region is None else places[answer.region]
        answers.append(replace(answer, region=region))
        if answer.verdict is Verdict.FALSIFIED:
            break
    return replace(combined(answers, network.num_inputs), stage_seconds=seconds)


def _down_the_ladder(
    box: BoxStages, engine: Engine, with_marabou: bool, prove_again: bool
) -> Answer:
    """Until all regions of a box are excluded, one is reached, or nothing is left to try."""
    # Marabou knows nothing of valid inputs, nor of functions other than the ReLU.
    with_marabou = with_marabou and box.domain is None and not box.is_curved
    share = BRANCHING_SHARE if with_marabou else 1.0
    crown: Stage = (DecidedBy.CROWN, lambda: box.plain_bounds("crown"))
    attack: Stage = (DecidedBy.ATTACK, lambda: box.attack(FIRST_RESTARTS, from_center=True))
    stages: list[Stage] = [
        (DecidedBy.INTERVAL, lambda: box.plain_bounds("interval")),
        *([attack, crown] if box.bounds.network.is_large else [crown, attack]),
        (DecidedBy.CROWN, box.alpha_crown),
        (DecidedBy.ATTACK, lambda: box.attack(MORE_RESTARTS, from_center=False)),
    ]
    if engine == "ladder":
        stages += [
            (DecidedBy.BRANCH_AND_BOUND, lambda: box.branch_and_bound(share)),
            (DecidedBy.BRANCH_AND_BOUND, box.split_inputs),
        ]
    answer = box.down(stages)
    is_open = answer.verdict not in {Verdict.ROBUST, Verdict.FALSIFIED}
    if is_open and engine == "ladder" and with_marabou and time.monotonic() < box.deadline:
        again: list[Stage] = [(DecidedBy.BRANCH_AND_BOUND, box.branch_and_bound)]
        return box.marabou(1 / MARABOU_OVERSHOOT, again if prove_again else [])
    if is_open and engine == "ladder" and box.is_curved:
        return replace(answer, reason=f"{answer.reason}; {RELUS_ALONE}")
    return answer


def _marabou_first(box: BoxStages, prove_again: bool) -> Answer:
    """Marabou's question rests on CROWN's bounds, with which the proof then begins."""
    if box.is_curved:
        nothing = np.empty((0, box.bounds.network.num_inputs))
        return Answer(Verdict.UNKNOWN, DecidedBy.MARABOU, nothing, reason=RELUS_ALONE)
    again: list[Stage] = [
        (DecidedBy.CROWN, lambda: box.plain_bounds("crown")),
        (DecidedBy.CROWN, box.alpha_crown),
        (DecidedBy.BRANCH_AND_BOUND, box.branch_and_bound),
    ]
    return box.marabou(1.0, again if prove_again else [])


def warm_up() -> None:
    """Compiles both searches' kernels, or loads them from Numba's cache.

    A process that decides under time limits calls this first, so that none of them pays for it.
    """
    phase_search, input_search = searches()
    for first in _first_layers():
        count, inputs = first.shape
        last = Affine(DenseMatrix(np.ones((2, count))), np.zeros(2))
        network = ReluNetwork((Affine(first, np.zeros(count)), last))
        box = Box(np.full((1, inputs), -1.0), np.ones((1, inputs)))
        region = UnsafeRegion(box, np.eye(2), np.ones(2))
        hidden = preactivation_bounds(network, box, "crown")
        phase_search(network, box, [region], hidden, goal=np.inf).bound_roots(np.inf)
        input_search(network, box, [region], hidden).run(deadline=0.0)


def _first_layers() -> tuple[Matrix, Matrix]:
    """One that is dense, and one in blocks of few weights: each has loops of its own."""
    rows, columns = np.arange(16).reshape(8, 2), np.arange(32).reshape(8, 4)
    blocks = Blocks(np.ones((8, 2, 4)), rows, columns, (16, 32))
    return DenseMatrix(np.ones((2, 64))), BlockMatrix((blocks,), blocks.shape)
