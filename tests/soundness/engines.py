"""Every way in which the product can be asked of a case, and what its answer is worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from unittest.mock import patch

import numpy as np

from tasks.core.bounds import linear
from tasks.core.bounds.linear import (
    Method,
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.bounds.precision import DOUBLE, SINGLE, Precision
from tasks.core.bounds.relaxations import Bounds
from tasks.core.errors import CertiflowError
from tasks.core.execution import asking
from tasks.core.execution.asking import Resources
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.batched_boxes import BatchedBoxes
from tasks.core.search.first_stages import AttackStrength
from tasks.core.search.inputs import InputSearch
from tasks.core.search.ladder import decide
from tasks.core.search.outcome import Search
from tasks.core.search.phases import PhaseSearch, optimised_root
from tasks.core.verdicts import Engine, Verdict, VerificationResult
from tasks.core.verification import local_robustness
from tasks.core.verification.balls import Sample
from tasks.core.verification.radius_search import RadiusGoal, RadiusJob, RadiusSolver
from tests.networks import ball_around, pixels
from tests.one_process import outcomes_here
from tests.soundness import findings
from tests.soundness.cases import Case, Image
from tests.soundness.exact import Plane, least_excess
from tests.soundness.findings import Finding, worst
from tests.soundness.float32 import deployed

SEARCH_SECONDS = 0.2
ATTACK = AttackStrength(num_steps=5, num_restarts=1, seed=0)


def own(case: Case, seed: int) -> list[Finding]:
    """All but Marabou, which can take its process with it."""
    asked: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("network", lambda: _network(case)),
        ("interval", lambda: _plain_bounds(case, "interval", "interval")),
        ("crown", lambda: _plain_bounds(case, "crown", "crown")),
        ("single", lambda: _single(case)),
        ("alpha_crown", lambda: _alpha_crown(case)),
        ("phases", lambda: _search(case, "phases")),
        ("inputs", lambda: _search(case, "inputs")),
        ("boxes", lambda: _search(case, "boxes")),
        ("bounds", lambda: _decided(case, "bounds", seed)),
        ("verify", lambda: _verify(case, "verify")),
        ("nested", lambda: _verify(case, "nested")),
        ("radius", lambda: _radius(case)),
    ]
    return [finding for name, ask in asked for finding in guarded(name, ask)]


def ladder(case: Case, seed: int) -> list[Finding]:
    """The whole ladder."""
    return guarded("ladder", lambda: _decided(case, "ladder", seed))


def marabou(case: Case, seed: int) -> list[Finding]:
    """Marabou alone."""
    return guarded("marabou", lambda: _decided(case, "marabou", seed))


GROUPS: dict[str, Callable[[Case, int], list[Finding]]] = {
    "own": own,
    "ladder": ladder,
    "marabou": marabou,
}


def guarded(engine: str, ask: Callable[[], list[Finding]]) -> list[Finding]:
    """What was found; a refusal is undecided, any other exception wrong."""
    try:
        return ask()
    except CertiflowError as error:
        return [Finding(engine, "undecided", f"refused: {error}")]
    except Exception as error:
        return [Finding(engine, "wrong", f"raises {type(error).__name__}: {error}")]


def _decided(case: Case, engine: Engine, seed: int) -> list[Finding]:
    answer = decide(
        case.network, case.property, engine=engine, timeout_seconds=case.seconds, seed=seed
    )
    if answer.verdict is Verdict.ROBUST:
        claimed = getattr(answer, "deployed", None)
        return [
            findings.proof(case, engine, answer.margin),
            deployed(case, claimed, np.random.default_rng(seed)),
        ]
    if answer.verdict is Verdict.FALSIFIED:
        places = range(len(case.reached)) if answer.region is None else [answer.region]
        regions = [case.property.unsafe[place] for place in places]
        return [findings.counterexample(case, engine, answer.candidates[0], regions)]
    return [Finding(engine, "undecided", f"{answer.verdict}: {answer.reason}")]


def _network(case: Case) -> list[Finding]:
    """Whether a lowered network is what its layers are defined to be."""
    if case.samples is None:
        return []
    points, outputs = case.samples
    error = float(np.abs(case.network(points) - outputs).max())
    if error > 1e-9 * max(1.0, np.abs(outputs).max()):
        return [Finding("network", "wrong", f"the lowered network is {error:g} off its definition")]
    return [Finding("network", "right")]


def _single(case: Case) -> list[Finding]:
    """CROWN with hidden units' coefficients in float32, as of large networks in blocks."""

    def precision(network: ReluNetwork) -> Precision:
        return DOUBLE if network.is_curved else SINGLE

    with patch.object(linear, "unit_precision", precision):
        return _plain_bounds(case, "crown", "single")


def _plain_bounds(case: Case, method: Method, engine: str) -> list[Finding]:
    found = []
    for network, box, regions, places in _boxes(case):
        hidden = preactivation_bounds(network, box, method)
        lower = []
        for region in regions:
            if method == "interval":
                rows = interval_lower_bounds(network, region.rows, hidden, box)[0]
            else:
                depth = len(network.layers) - 1
                rows = linear_lower_bounds(network, depth, region.rows, hidden, box)[0]
            # the sum is the ladder's, which takes off its rounding; here it must not round up
            exact = [_sum(*pair) for pair in zip(rows, region.offsets, strict=True)]
            lower.append(max(exact))
        found.append(findings.bounds(_part(case, places), engine, lower))
        found.append(_hidden(case, engine, hidden, places))
    return [worst(found)]


def _sum(bound: float, offset: float) -> float:
    """Rounded down, so that the bound's own error alone can make it false."""
    if not np.isfinite(bound):
        return float(bound)
    exact = Fraction(float(bound)) + Fraction(float(offset))
    try:
        return float(np.nextafter(float(exact), -np.inf))
    except OverflowError:
        return float(bound)


def _alpha_crown(case: Case) -> list[Finding]:
    found = []
    for network, box, regions, places in _boxes(case):
        hidden = preactivation_bounds(network, box, "crown")
        deadline = time.monotonic() + SEARCH_SECONDS
        root = optimised_root(network, box, regions, hidden, 8, deadline)
        found.append(findings.bounds(_part(case, places), "alpha_crown", root.root_lower.tolist()))
        found.append(_hidden(case, "alpha_crown", root.problem.hidden, places))
    return [worst(found)]


def _search(case: Case, engine: str) -> list[Finding]:
    """Branch and bound straight from CROWN's bounds, whatever the number of inputs."""
    kind = PhaseSearch if engine == "phases" else InputSearch
    found = []
    for network, box, regions, places in _boxes(case):
        hidden = preactivation_bounds(network, box, "crown")
        deadline, search = time.monotonic() + SEARCH_SECONDS, kind(network, box, regions, hidden)
        if isinstance(search, InputSearch) and engine == "boxes":  # as of large networks
            search.padded = BatchedBoxes(network, box, regions, hidden, deadline)
        found.append(_searched(_part(case, places), engine, search.run(deadline)))
    return [worst(found)]


def _searched(case: Case, engine: str, searched: Search) -> Finding:
    if searched.candidate is not None:
        return findings.counterexample(case, engine, searched.candidate, case.property.unsafe)
    if searched.proved:
        return findings.proof(case, engine, searched.lower)
    if searched.lower == np.inf:  # nothing was bounded in time
        return Finding(engine, "undecided", searched.reason)
    least = min(reached.excess for reached in case.reached)
    found = findings.bound(engine, searched.lower, least)
    status = "wrong" if found.status == "wrong" else "undecided"
    return Finding(engine, status, f"{searched.reason}; {found.words}")


def _verify(case: Case, engine: str) -> list[Finding]:
    """The batched first stages and the ladder's rest, for one image at two radii.

    `nested` lets the verdict of one follow from the other's.
    """
    image = case.image
    if image is None:
        return []
    sample = Sample(
        np.array([0]), image.pixels[None], np.array([image.label]), pixels(image.pixels[None])
    )
    asking.outcomes = outcomes_here  # a process for each case would be all of its time
    results = local_robustness.verify(
        NumpyRuntime(case.network),
        case.network,
        sample,
        image.epsilons,
        engine="ladder",
        attack=ATTACK,
        timeout_seconds=2.0,
        resources=Resources(num_workers=1, memory_limit_bytes=2**31),
        nested=engine == "nested",
    )
    return [_ball(case, image, result, engine) for result in results]


def _ball(case: Case, image: Image, result: VerificationResult, engine: str) -> Finding:
    ball = ball_around(image.pixels[None], result.epsilon)
    if result.verdict is Verdict.ROBUST:
        return findings.bound(engine, result.margin, _least_margin(case.network, image, ball))
    if result.verdict is Verdict.FALSIFIED:
        point = result.counterexample
        label = NumpyRuntime(case.network).logits(point[None]).argmax()
        if not ball.contains(point[None])[0] or label == image.label:
            return Finding(engine, "wrong", "falsified by a point that does not show it")
        return Finding(engine, "right")
    return Finding(engine, "undecided", f"{result.verdict}: {result.reason}")


def _radius(case: Case) -> list[Finding]:
    image = case.image
    if image is None:
        return []
    goal = RadiusGoal(max_epsilon=0.6, tolerance=0.01, timeout_seconds=1.0)
    found = RadiusSolver(case.network, pixels(image.pixels[None]), goal)(
        RadiusJob(0, image.pixels, image.label)
    )
    ball = ball_around(image.pixels[None], found.proved)
    least = _least_margin(case.network, image, ball)
    if least <= 0 and found.proved > 0:
        words = f"radius {found.proved!r} is proved, yet a margin is {float(least):g}"
        return [Finding("radius", "wrong", words)]
    return [Finding("radius", "right" if found.proved > 0 else "undecided", found.reason)]


def _least_margin(network: ReluNetwork, image: Image, ball: Box) -> Fraction:
    """The exact least margin over a ball."""
    regions = Property.robustness(ball, image.label, network.num_outputs).unsafe
    plane = Plane.across(ball, image.sums)
    return min(least_excess(network, region, plane).excess for region in regions)


Part = tuple[ReluNetwork, Box, list[UnsafeRegion], list[int]]


def _boxes(case: Case) -> Iterator[Part]:
    """Network, box, the regions that share it, and their places."""
    regions = case.property.unsafe
    mixed = regions[0].rows.shape[1] > case.network.num_outputs
    network = case.network.with_inputs() if mixed else case.network
    for box in dict.fromkeys(region.box for region in regions):
        places = [place for place, region in enumerate(regions) if region.box is box]
        yield network, box, [regions[place] for place in places], places


def _part(case: Case, places: Sequence[int]) -> Case:
    """The case of some of its regions."""
    unsafe = tuple(case.property.unsafe[place] for place in places)
    return Case(case.network, Property(unsafe), tuple(case.reached[place] for place in places))


def _hidden(case: Case, engine: str, hidden: Sequence[Bounds], places: Sequence[int]) -> Finding:
    """Bounds of hidden units; those that `with_inputs` adds at the end are not looked at."""
    widths = [len(layer.bias) for layer in case.network.layers[:-1]]
    both = [
        (layer.lower[0, :width], layer.upper[0, :width])
        for layer, width in zip(hidden, widths, strict=True)
    ]
    return findings.hidden(_part(case, places), engine, both)
