"""Predicted numbers on tables of whole numbers: the ladder held against all valid rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.attacks.gradient import pgd
from tasks.core.bounds.linear import certified
from tasks.core.models.network_classifier import NetworkClassifier
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.models.tolerance import ToleranceRuntime
from tasks.core.networks.tolerance import in_float32, within
from tasks.core.properties.domain import GREATEST, Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import Property
from tasks.core.search.ladder import decide
from tasks.core.verdicts import DecidedBy, Engine, Verdict
from tests.core.search.test_tables import CASES, all_rows, random_row, random_table
from tests.networks import random_network

REFERENCE = Feature(name="y", lower=-GREATEST, upper=GREATEST, mutable=False)


def with_reference(table: Perturbation) -> Perturbation:
    """The table whose rows end with a number that nobody can change."""
    relations = [relation.text for relation in table.domain.relations]
    domain = Domain.of_table((*table.domain.features, REFERENCE), relations)
    still = np.append(table.down, 0.0), np.append(table.up, 0.0)
    return replace(table, domain=domain, down=still[0], up=still[1])


@pytest.mark.parametrize(
    ("engine", "cases"), [("ladder", CASES), ("bounds", CASES), ("marabou", CASES // 5)]
)
def test_verdicts_are_those_of_an_enumeration(engine: Engine, cases: int) -> None:
    verdicts: Counter[Verdict] = Counter()
    for case in range(cases):
        generator = np.random.default_rng([11, case])
        table = random_table(generator)
        widths = (8, 6) if generator.random() < 0.8 else ()
        network = random_network(generator, (table.domain.num_inputs, *widths, 1))
        row = random_row(generator, table.domain)
        size = float(10.0 ** generator.integers(-3, 6))  # of the target's unit
        last = network.layers[-1]
        network = replace(
            network,
            layers=(*network.layers[:-1], type(last)(last.weight * size, last.bias * size)),
            roundings=(),
        )
        tolerance = float(in_float32(size * generator.uniform(0.1, 1.5)))
        number = float(network(row[None])[0, 0])
        y = float(np.float32(number + generator.uniform(-0.9, 0.9) * tolerance))
        epsilon = float(generator.choice([0.4, 1.0, 2.0]))
        point = np.append(row, y)
        asked = with_reference(table)
        boxes, _ = asked.boxes(point[None], epsilon)
        prop = Property.robustness(boxes, 0, 3, asked.domain)
        answer = decide(
            within(network, tolerance),
            prop,
            engine=engine,
            timeout_seconds=20,
            with_marabou=engine == "marabou",
        )
        rows = all_rows(table, row, epsilon)
        far = np.abs(network(rows)[:, 0] - y)
        verdicts[answer.verdict] += 1
        if answer.verdict is Verdict.ROBUST:
            assert (far < tolerance).all()
        elif answer.verdict is Verdict.FALSIFIED:
            found = answer.candidates[0]
            assert found[-1] == y
            assert (rows == found[:-1]).all(axis=1).any()
            assert abs(float(network(found[None, :-1])[0, 0]) - y) >= tolerance
    assert min(verdicts[Verdict.ROBUST], verdicts[Verdict.FALSIFIED]) > cases / 10
    if engine == "ladder":
        assert set(verdicts) == {Verdict.ROBUST, Verdict.FALSIFIED}  # it leaves none open


def test_what_is_proved_is_broken_by_no_attack() -> None:
    """Over real features: bounds at most as many as the ladder, at most as many as attacks leave.

    The ladder decides every ball; its counterexamples are replayed on the deployed model.
    """
    shares = list[FloatArray]()
    decided: Counter[DecidedBy] = Counter()
    for case in range(12):
        generator = np.random.default_rng([13, case])
        features = [Feature(name=f"f{index}") for index in range(4)]
        domain = Domain.of_table((*features, REFERENCE))
        x = generator.uniform(0.2, 0.8, (25, 4))
        network = random_network(generator, (4, 12, 12, 1))
        y = network(x)[:, 0] + generator.normal(0, 0.15, len(x))
        points = np.column_stack([x, y]).astype(np.float32)
        table = Perturbation.of_table(domain, points, "absolute")
        asked = within(network, 0.3)
        runtime = ToleranceRuntime(NumpyRuntime(network), in_float32(0.3))
        classifier = NetworkClassifier(runtime, asked)
        labels = np.zeros(len(points), np.int64)
        clean = classifier.predictions(points) == 0
        attacked = pgd(
            classifier, points, labels, table, 0.15, num_steps=20, num_restarts=3, seed=case
        )
        bounds = certified(asked, table.boxes(points, 0.15)[0], labels)
        proved = np.zeros(len(points), bool)
        for place in np.flatnonzero(clean):
            box, _ = table.boxes(points[place : place + 1], 0.15)
            prop = Property.robustness(box, 0, 3, domain)
            answer = decide(asked, prop, timeout_seconds=20, with_marabou=False)
            proved[place] = answer.verdict is Verdict.ROBUST
            decided[answer.decided_by] += 1
            if answer.verdict is Verdict.FALSIFIED:
                fed = answer.candidates[:1].astype(np.float32)
                far = abs(network(fed[:, :-1].astype(np.float64))[0, 0] - fed[0, -1])
                assert far >= 0.3 - 1e-6
        left = clean & ~attacked.broken
        assert not (bounds & ~proved).any()
        assert not (proved & ~left).any()
        shares.append(np.array([bounds.mean(), proved.mean(), left.mean(), clean.mean()]))
    mean = np.mean(shares, axis=0)
    assert 0.05 < mean[0] < mean[1] <= mean[2] < mean[3] < 1
    assert len(decided) > 1
