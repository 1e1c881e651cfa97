"""The ladder on tables of whole numbers, categories and relations: held against all their rows."""

from __future__ import annotations

import itertools
import os
from collections import Counter

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import Property, margins
from tasks.core.search.answer import Known
from tasks.core.search.ladder import decide
from tasks.core.verdicts import DecidedBy, Engine, Verdict
from tests.networks import random_network

CASES = int(os.environ.get("CERTIFLOW_TABLE_CASES", "300"))
RELATIONS = [
    "n0 <= n1 + 1",
    "n0 + n1 + n2 <= 4",
    "n0 > 1 -> n1 > 0",
    "kind[x] == 1 -> n2 <= 1",
    "n0 + 2 * n1 == 3 * n2",
    "flag == 1 -> n0 < 2",
]


def random_table(generator: np.random.Generator) -> Perturbation:
    """Three to fourteen whole numbers, a flag and a category; up to two relations."""
    count = int(generator.choice([3, 4, 14], p=[0.5, 0.4, 0.1]))
    features = [
        Feature(
            name=f"n{index}",
            kind="integer",
            lower=-1,
            upper=3,
            scale=float(generator.choice([1, 2, 5])),
            mutable=bool(index < 3 or generator.random() < 0.2),
            direction=str(generator.choice(["both", "up", "down"], p=[0.6, 0.2, 0.2])),
        )
        for index in range(count)
    ]
    features.append(Feature(name="flag", kind="binary", mutable=bool(generator.random() < 0.5)))
    features.append(Feature(name="kind", kind="category", categories=("x", "y", "z")))
    relations = generator.choice(RELATIONS, generator.integers(0, 3), replace=False)
    domain = Domain.of_table(features, relations.tolist())
    nothing = np.zeros((1, domain.num_inputs), np.float32)
    return Perturbation.of_table(domain, nothing, "absolute", int(generator.integers(0, 2)))


def random_row(generator: np.random.Generator, domain: Domain) -> FloatArray:
    """Within the bounds; its relations may be broken, as data break them."""
    row = np.round(generator.uniform(domain.lower - 0.49, domain.upper + 0.49))
    for _, columns in domain.groups:
        row[columns] = np.eye(columns.stop - columns.start)[generator.integers(0, 3)]
    return np.asarray(row)


def all_rows(perturbation: Perturbation, row: FloatArray, epsilon: float) -> FloatArray:
    """Every valid row that an attacker can make, from the features' words alone."""
    domain, axes, place = perturbation.domain, [], 0
    for feature in domain.features:
        now = row[place]
        place += len(feature.columns)
        if feature.kind == "category":
            continue
        reach = epsilon * (1 if feature.scale is None else feature.scale)
        values = [
            value
            for value in range(int(feature.lower), int(feature.upper) + 1)
            if value == now
            or (
                feature.mutable
                and abs(value - now) <= reach
                and (feature.direction != "up" or value > now)
                and (feature.direction != "down" or value < now)
            )
        ]
        axes.append([[float(value)] for value in values])
    (_, columns), *_ = domain.groups
    kinds = np.eye(3).tolist() if perturbation.most_changes else [row[columns].tolist()]
    found = [np.concatenate(chosen) for chosen in itertools.product(*axes, kinds)]
    rows = np.array(found)
    for relation in domain.relations:
        rows = rows[relation.holds(rows)]
    return rows


@pytest.mark.parametrize("engine", ["ladder", "bounds"])
def test_verdicts_are_those_of_an_enumeration(engine: Engine) -> None:
    verdicts: Counter[Verdict] = Counter()
    outside = 0
    for case in range(CASES):
        generator = np.random.default_rng([7, case])
        perturbation = random_table(generator)
        domain = perturbation.domain
        network = random_network(generator, (domain.num_inputs, 8, 6, 3))
        row = random_row(generator, domain)
        label = int(network(row[None]).argmax())
        epsilon = float(generator.choice([0.4, 1.0, 2.0]))
        boxes, _ = perturbation.boxes(row[None].astype(np.float32), epsilon)
        prop = Property.robustness(boxes, label, 3, domain)
        answer = decide(network, prop, engine=engine, timeout_seconds=20, with_marabou=False)
        rows = all_rows(perturbation, row, epsilon)
        least = margins(network(rows), np.full(len(rows), label)).min(axis=1)
        broken = rows[least <= 0]
        if answer.verdict is Verdict.FALSIFIED:
            point = answer.candidates[0]
            assert domain.contains(point[None])[0]
            assert (rows == point).all(axis=1).any()
            assert _margin(network, point, label) <= 0
        elif answer.verdict is Verdict.ROBUST:
            assert len(broken) == 0
            assert answer.margin is not None
            assert not len(rows) or answer.margin <= least.min() + 1e-9
        verdicts[answer.verdict] += 1
        relaxed = decide(network, Property(prop.unsafe), timeout_seconds=20, with_marabou=False)
        outside += relaxed.verdict is Verdict.FALSIFIED and answer.verdict is Verdict.ROBUST
    if engine == "ladder":
        assert set(verdicts) == {Verdict.ROBUST, Verdict.FALSIFIED}  # it leaves none open
        assert min(verdicts.values()) > CASES / 6
        assert outside > CASES / 20  # broken between whole numbers, or where a relation is


def _margin(network: ReluNetwork, point: FloatArray, label: int) -> float:
    return float(margins(network(point[None]), [label]).min())


def test_what_breaks_only_outside_the_domain_is_proved_where_inputs_can_be_split() -> None:
    """Logits n and 1 - n, at n = 0: other labels begin at 1/2, and a relation forbids them."""
    network = ReluNetwork((Affine(np.array([[1.0], [-1.0]]), np.array([0.0, 1.0])),))
    domain = Domain.of_table([Feature(name="n", upper=4)], ["n <= 0.25"])
    train = np.array([[0], [4]], np.float32)
    box = Perturbation.of_table(domain, train).box(train[:1], 0.24)
    prop = Property.robustness(box, 1, 2, domain)
    answer = decide(network, prop, timeout_seconds=5)
    assert (answer.verdict, answer.decided_by) == (Verdict.ROBUST, DecidedBy.BRANCH_AND_BOUND)
    free = Property.robustness(box, 1, 2)
    assert decide(network, free, timeout_seconds=5).verdict is Verdict.FALSIFIED
    assert prop.sha256 != free.sha256


def test_a_row_that_a_relation_allows_by_its_decimals_is_not_left_out() -> None:
    """0.1 * 3 is more than 0.3 in float64; the logits n and 5.5 - n break the label 1 at 3."""
    network = ReluNetwork((Affine(np.array([[1.0], [-1.0]]), np.array([0.0, 5.5])),))
    domain = Domain.of_table([Feature(name="n", kind="integer", upper=4)], ["0.1 * n <= 0.3"])
    perturbation = Perturbation.of_table(domain, np.array([[0], [4]], np.float32))
    box = perturbation.box(np.array([[2]], np.float32), 0.5)
    answer = decide(network, Property.robustness(box, 1, 2, domain), timeout_seconds=5)
    assert (answer.verdict, answer.candidates.tolist()) == (Verdict.FALSIFIED, [[3.0]])


def test_a_box_of_which_all_is_known_is_not_asked_about_again() -> None:
    """Of two choices of a category the first stages have excluded one, and left the other open."""
    network = ReluNetwork((Affine(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]), np.zeros(2)),))
    features = [Feature(name="a"), Feature(name="kind", kind="category", categories=("x", "y"))]
    domain = Domain.of_table(features)
    rows = np.array([[0, 1, 0], [1, 1, 0]], np.float32)
    perturbation = Perturbation.of_table(domain, rows, most_changes=1)
    prop = Property.robustness(perturbation.boxes(rows[:1], 0.1)[0], 0, 2, domain)
    known = Known(np.array([1.0, -np.inf]))
    answer = decide(network, prop, timeout_seconds=5, known=known)
    assert (answer.verdict, answer.region) == (Verdict.FALSIFIED, 1)
    both = decide(network, prop, timeout_seconds=5, known=Known(np.array([1.0, 2.0])))
    assert (both.verdict, both.margin, both.deployed) == (Verdict.ROBUST, 1.0, True)
