"""Every question has the same answers on a Dask cluster's workers, who share no disk with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.execution import asking
from tasks.core.execution.asking import Resources
from tasks.core.execution.cluster import run_on_cluster
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.models.loading import load
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.pairs.difference_search import DifferenceGoal
from tasks.core.pairs.global_robustness import ClassResult, global_robustness
from tasks.core.pairs.near_pairs import NearPairs
from tasks.core.properties.domain import Domain
from tasks.core.properties.vnnlib import read_property
from tasks.core.queries.properties import Instance, verify_instances
from tasks.core.queries.property_solver import InstanceResult
from tasks.core.verification.balls import Sample
from tasks.core.verification.critical_radius import Bracket, critical_radii
from tasks.core.verification.radius_search import RadiusGoal
from tests.dask_cluster import Cluster
from tests.networks import box, pixels, random_network
from tests.property_files import saved_distance, saved_property

HERE = Resources(num_workers=1, memory_limit_bytes=2**31)


@pytest.fixture
def there(cluster: Cluster) -> Resources:
    return replace(HERE, cluster=cluster.address)


@pytest.fixture
def solved_there(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each question has sent to a cluster; on this machine nothing is solved."""
    counts: list[int] = []

    def counted(
        address: str, make: Any, arguments: Any, jobs: list[Any], **limits: Any
    ) -> Iterator[Any]:
        counts.append(len(jobs))
        return run_on_cluster(address, make, arguments, jobs, **limits)

    monkeypatch.setattr(asking, "run_on_cluster", counted)
    return counts


def test_critical_radii(there: Resources, solved_there: list[int], tmp_path: Path) -> None:
    network = random_network(np.random.default_rng(2), (4, 8, 3))
    images = np.random.default_rng(3).uniform(0.2, 0.8, size=(4, 4)).astype(np.float32)
    sample = Sample(np.arange(4), images, network(images).argmax(axis=1), pixels(images))

    def brackets(resources: Resources, store: VerdictStore | None = None) -> list[Bracket]:
        goal = RadiusGoal(max_epsilon=0.5, tolerance=0.002, timeout_seconds=60)
        return critical_radii(NumpyRuntime(network), network, sample, goal, resources, store=store)

    with VerdictStore(tmp_path / "verdicts.db") as store:
        found = brackets(there, store)
        again = brackets(HERE, store)
    expected = brackets(HERE)
    assert solved_there == [4]
    assert all(bracket.complete for bracket in found)
    for name in ("sample_index", "proved", "falsified", "proved_by", "complete", "probes"):
        values = [getattr(bracket, name) for bracket in expected]
        assert [getattr(bracket, name) for bracket in found] == values
    assert [bracket.seconds for bracket in again] == [bracket.seconds for bracket in found]


def test_global_robustness(there: Resources, solved_there: list[int]) -> None:
    network = random_network(np.random.default_rng(1), (3, 5, 2))

    def results(resources: Resources) -> list[ClassResult]:
        domain, goal = box([0.25, 0.0, 0.5], [0.25, 1.0, 0.75]), DifferenceGoal(None, 0.01, 60)
        pairs = NearPairs.within(domain, np.full(3, 0.05), Domain((3,)))
        runtime = NumpyRuntime(network)
        return global_robustness(network, pairs, goal, resources, runtime=runtime)

    found, expected = results(there), results(HERE)
    assert solved_there == [2]
    assert all(np.isfinite(result.epsilon) for result in found)
    for name in ("label", "verdict", "epsilon", "largest_difference", "decided_by"):
        values = [getattr(result, name) for result in expected]
        assert [getattr(result, name) for result in found] == values


def without_seconds(results: list[InstanceResult]) -> list[InstanceResult]:
    return [replace(result, seconds=0.0, stage_seconds={}) for result in results]


def test_properties_and_their_files_travel(
    there: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are gone when work begins, as they are on other machines."""
    model = saved_distance(tmp_path)
    sat, unsat, bad = (
        saved_property(tmp_path / f"{name}.vnnlib", assertion)
        for name, assertion in (
            ("sat", "(>= Y_0 0.9)"),
            ("unsat", "(>= Y_0 1.1)"),
            ("bad", "(>= Y_7 1.1)"),
        )
    )
    loaded = load(model)
    instances = [
        Instance(model, sat, 60),
        Instance(model, unsat, 60),
        Instance(model, bad, 60),
        Instance(loaded, read_property(sat, 2, 2), 60),
        Instance(tmp_path / "no.onnx", sat, 60),
    ]

    def verified(resources: Resources, store: VerdictStore | None = None) -> list[InstanceResult]:
        return verify_instances(
            instances, resources, engine="ladder", seed=0, store=store, fresh=False
        )

    expected = without_seconds(verified(HERE))
    contents = {path: path.read_bytes() for path in (model, sat, unsat, bad)}

    def hidden(*arguments: Any, **limits: Any) -> Iterator[Any]:
        for path in contents:
            path.unlink(missing_ok=True)
        return run_on_cluster(*arguments, **limits)

    monkeypatch.setattr(asking, "run_on_cluster", hidden)
    with VerdictStore(tmp_path / "verdicts.db") as store:
        first = verified(there, store)
        for path, content in contents.items():
            path.write_bytes(content)
        second = verified(there, store)
    assert [result.verdict for result in first] == ["sat", "unsat", "error", "sat", "error"]
    assert str(bad) in first[2].reason
    assert without_seconds(first) == expected
    assert [result.stored for result in second] == [True, True, False, True, False]
    for before, after in zip(first, second, strict=True):
        assert not after.stored or after == replace(before, stored=True)
