"""The checker believes nothing: every certificate that passes is true, whatever is in it."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.checker.bounds import Choices, float32_error, hidden_bounds, lower_bounds
from tasks.checker.certificate import CROWN, MULTIPLIERS
from tasks.checker.check import check, where_split
from tasks.checker.exact import Exact
from tasks.checker.network import Network, Step
from tasks.checker.refused import RefusedError
from tasks.core.certificates.certify import Balls, written
from tasks.core.certificates.proofs import WHOLE
from tasks.core.certificates.writing import write_certificate
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tests.certified import Arrays, certified, changed, float32_network, saved
from tests.checker.changes import TOLERANCE, case, mutated, passes, wider_than_robust
from tests.imports import ROOT

CHECKER = ROOT / "tasks/checker"


@pytest.mark.parametrize(
    ("seed", "widths"),
    [
        (0, (3, 5, 3)),
        (1, (2, 6, 6, 3)),
        (2, (14, 8, 3)),
        (3, (15, 8, 8, 3)),
        (4, (13, 6, 6, 6, 2)),
        (5, (13, 9, 4)),
    ],
)
def test_what_the_oracle_calls_robust_is_certified_in_both_arithmetics(
    seed: int, widths: tuple[int, ...], tmp_path: Path
) -> None:
    network, balls, least = case(seed, widths, share=0.97)
    assert least > TOLERANCE
    model, certificate = certified(tmp_path, network, balls)
    assert [result.proved for result in check(certificate, model)] == [True]
    assert [result.proved for result in check(certificate, model, exact=True)] == [True]


@pytest.mark.parametrize(("seed", "widths"), [(1, (2, 6, 6, 3)), (3, (15, 8, 8, 3))])
def test_no_change_of_its_numbers_makes_it_pass_of_a_ball_that_is_not_robust(
    seed: int, widths: tuple[int, ...], tmp_path: Path
) -> None:
    """The boxes are widened until another class wins in them; 150 changes of all else."""
    network, balls, _ = case(seed, widths, share=0.97)
    model, certificate = certified(tmp_path, network, balls)
    wider, generator = wider_than_robust(network, balls), np.random.default_rng(seed)
    assert passes(certificate, model)
    assert not passes(changed(certificate, lambda arrays: wider), model)
    for _ in range(150):
        path = changed(certificate, lambda arrays: wider | mutated(arrays, generator))
        assert not passes(path, model)


def test_leaves_that_are_missing_or_open_prove_nothing(tmp_path: Path) -> None:
    network, balls, _ = case(3, (15, 8, 8, 3), share=0.97)
    model, certificate = certified(tmp_path, network, balls)
    with np.load(certificate) as file:
        kinds = file["node_kind"]
    leaves = np.flatnonzero(kinds == MULTIPLIERS)
    assert len(leaves) > 1
    for leaf in leaves.tolist():
        silent = kinds.copy()
        silent[leaf] = 0
        without = {"node_kind": silent}
        assert not passes(changed(certificate, lambda arrays, without=without: without), model)


def test_a_certificate_speaks_of_one_network_alone(tmp_path: Path) -> None:
    network, balls, _ = case(0, (3, 5, 3), share=0.5)
    model, certificate = certified(tmp_path, network, balls)
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(RefusedError, match="expected the file with SHA-256"):
        check(certificate, model)


@pytest.mark.parametrize("place", [0, 30, -30, -1])
def test_damaged_files_are_refused(place: int, tmp_path: Path) -> None:
    network, balls, _ = case(0, (3, 5, 3), share=0.5)
    model, certificate = certified(tmp_path, network, balls)
    content = certificate.read_bytes()
    certificate.write_bytes(content[: len(content) // 2])
    with pytest.raises(RefusedError, match="cannot be read"):
        check(certificate, model)
    damaged = bytearray(content)
    damaged[place] ^= 255
    certificate.write_bytes(damaged)
    proved = passes(certificate, model)  # where a byte means nothing, all is as it was
    assert proved in {True, False}


def test_boxes_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network, balls, _ = case(0, (3, 5, 3), share=0.5)
    model, certificate = certified(tmp_path, network, balls)
    for value in (np.nan, np.inf, 2.0**65):
        wrong = {"box_upper": np.full((1, 3), value)}
        with pytest.raises(RefusedError, match="not finite"):
            check(changed(certificate, lambda arrays, wrong=wrong: wrong), model)


def test_empty_boxes_are_refused(tmp_path: Path) -> None:
    network, balls, _ = case(0, (3, 5, 3), share=0.5)
    model, certificate = certified(tmp_path, network, balls)

    def turned(arrays: Arrays) -> Arrays:
        return {"box_upper": arrays["box_lower"] - 1}

    with pytest.raises(RefusedError, match="a box is empty"):
        check(changed(certificate, turned), model)


def test_questions_without_a_box_are_not_proved(tmp_path: Path) -> None:
    network, balls, _ = case(0, (3, 5, 3), share=0.5)
    model, certificate = certified(tmp_path, network, balls)

    def with_another(arrays: Arrays) -> Arrays:
        header = json.loads(arrays["header"].tobytes()) | {"names": ["0", "1"]}
        return {
            "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            "question_label": np.array([*arrays["question_label"], 0]),
        }

    one, other = check(changed(certificate, with_another), model)
    assert one.proved
    assert not other.proved
    assert other.reason == "there is no box of it"


def test_exact_numbers_are_those_of_fractions() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2, 3, 4)) * 2.0 ** generator.integers(-60, 60, size=(2, 3, 4))
    other = generator.normal(size=(4, 5)).astype(np.float32).astype(np.float64)
    one, two = Exact.of(values), Exact.of(other)
    assert (one.floats() == values).all()
    product = one @ two @ Exact.of(generator.normal(size=(5, 2)).round(3))
    tests: list[tuple[Exact, NDArray[Any]]] = [
        (one @ two, fractions(values) @ fractions(other)),
        (one * one - 0.5, fractions(values) ** 2 - Fraction(1, 2)),
        (np.maximum(one, 0), np.maximum(fractions(values), 0)),
        (-abs(one), -abs(fractions(values))),
    ]
    for found, expected in tests:
        assert (as_fractions(found) == expected).all()
    low = product.floor(10)
    assert low.places <= 10
    assert (as_fractions(low) <= as_fractions(product)).all()
    assert (as_fractions(product) - as_fractions(low) < Fraction(1, 2**10)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_no_exact_number(value: float) -> None:
    with pytest.raises(ValueError, match="infs or NaNs"):
        Exact.of(np.array([1.0, value]))


def fractions(values: NDArray[Any]) -> NDArray[Any]:
    return np.array([Fraction(each) for each in values.ravel().tolist()]).reshape(values.shape)


def as_fractions(values: Exact) -> NDArray[Any]:
    flat = [Fraction(each, 1 << values.places) for each in values.integers.ravel().tolist()]
    return np.array(flat).reshape(values.shape)


def test_it_imports_numpy_and_onnx_alone() -> None:
    names = set()
    for path in CHECKER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnx"}


def test_the_folder_runs_by_itself(tmp_path: Path) -> None:
    network, balls, _ = case(0, (3, 5, 3), share=0.5)
    _, certificate = certified(tmp_path, network, balls)
    shutil.copytree(CHECKER, tmp_path / "checker")
    command = [sys.executable, "-I", "-c", "import runpy, sys; sys.path.insert(0, '.'); "]
    command[-1] += "sys.argv = ['checker', 'certificate.npz']; runpy.run_module('checker')"
    command = [sys.executable, "-m", "checker", certificate.name]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (
        0,
        "1 of 1 proved, 1 of the float32 model as well\n",
    )
    certificate.write_bytes(b"no archive")
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.startswith("refused: certificate.npz: cannot be read as a certificate")


def test_a_tie_is_not_proved_and_the_least_margin_is_in_exact_arithmetic(tmp_path: Path) -> None:
    """Outputs x0 + x1 + c and x1 + x0: equal for c = 0, 2^-60 apart for that c."""
    for margin, exactly in ((0.0, False), (2.0**-60, True)):
        layers = (
            Affine(np.eye(2), np.zeros(2)),
            Affine(np.ones((2, 2)), np.array([margin, 0.0])),
        )
        box = Box(np.array([[0.25, 0.5]]), np.array([[0.75, 1.0]]))
        balls = Balls(["0"], np.array([0]), box, np.array([0]))
        model, claimed = saved(tmp_path, ReluNetwork(layers)), tmp_path / "certificate.npz"
        assert written(model, balls, [WHOLE[CROWN]], claimed) == []
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        boxes = {"box_lower": box.lower, "box_upper": box.upper, "box_question": balls.owners}
        claim = boxes | {"question_label": balls.labels}
        write_certificate(claimed, {"names": ["0"], "network": digest}, claim, [WHOLE[CROWN]])
        assert [result.proved for result in check(claimed, model)] == [False]
        assert [result.proved for result in check(claimed, model, exact=True)] == [exactly]


@pytest.mark.parametrize("seed", range(8))
def test_any_multipliers_bound_from_below(seed: int) -> None:
    """Random slopes, planes and multipliers of splits, of units split at random."""
    generator = np.random.default_rng(seed)
    widths = (3, 6, 5, 3)
    network = float32_network(generator, widths)
    steps = [[Step(layer.weight, layer.bias)] for layer in network.layers]
    read = Network(3, steps, [6, 5, 3])
    lower = generator.uniform(-1, 0.5, size=(1, 3))
    upper = lower + generator.uniform(0, 1, size=(1, 3))
    points = generator.uniform(lower, upper, size=(20_000, 3))
    values = network.preactivations(points)
    frame = hidden_bounds(read, lower, upper, by_crown=bool(seed % 2))
    for (low, high), hidden in zip(frame.hidden, values, strict=False):
        assert (hidden >= low).all()
        assert (hidden <= high).all()
    rows = generator.normal(size=(1, 2, 3))
    for _ in range(20):
        signs = [generator.choice([-1, 0, 0, 0, 1], size=(1, width)) for width in (6, 5)]
        choices = Choices(
            [generator.uniform(size=sign.shape).round(3) for sign in signs],
            [sign * generator.exponential(size=sign.shape).round(3) for sign in signs],
            generator.normal(0.5, 1, size=(1, 6)).round(3),
            generator.normal(size=(1, 3)).round(3),
        )
        inside = np.all(
            [(h * sign >= 0).all(axis=1) for h, sign in zip(values, signs, strict=False)], axis=0
        )
        least = (values[-1][inside] @ rows[0].T).min(axis=0, initial=np.inf)
        found = lower_bounds(read, rows, where_split(frame, signs), choices)
        exact_frame = hidden_bounds(read, Exact.of(lower), Exact.of(upper), bool(seed % 2))
        exactly = lower_bounds(read, rows, where_split(exact_frame, signs), choices).floats()
        assert (found[0] <= least).all()
        assert (exactly[0] <= least + 1e-12).all()
        np.testing.assert_allclose(found, exactly, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_float32_error_covers_sums_in_any_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    network = float32_network(generator, (4, 30, 20, 3))
    network.layers[1].bias[::2] -= 3  # some units are dead
    read = Network(4, [[Step(a.weight, a.bias)] for a in network.layers], [30, 20, 3])
    points = generator.uniform(size=(200, 4)).astype(np.float32)
    rows = generator.normal(size=(1, 2, 3))
    box = (points.min(axis=0)[None].astype(float), points.max(axis=0)[None].astype(float))
    error = float32_error(read, hidden_bounds(read, *box, by_crown=True), rows)[0]
    for _ in range(5):
        values = points
        for place, layer in enumerate(network.layers):
            order = generator.permutation(values.shape[1])
            total = np.zeros((len(points), len(layer.bias)), dtype=np.float32)
            for unit in order.tolist():
                total += values[:, unit, None] * layer.weight[:, unit].astype(np.float32)
            values = total + layer.bias.astype(np.float32)
            values = values if place == 2 else np.maximum(values, np.float32(0))
        off = np.abs((values.astype(float) - network(points)) @ rows[0].T)
        assert (off <= error).all()
        assert off.max() > 0


def test_one_region_does_not_count_twice(tmp_path: Path) -> None:
    """Numbers from the end, and repeated ones, in the place of regions that are not excluded."""
    network, balls, _ = case(3, (15, 8, 8, 3), share=0.97)
    model, certificate = certified(tmp_path, network, balls)
    for regions in ([0, -2], [0, 0], [1, -1], [1, 1], [0, 2]):

        def renamed(arrays: Arrays, regions: list[int] = regions) -> Arrays:
            places = arrays["node_region"]
            return {"node_region": np.array(regions, dtype=np.int32)[places]}

        assert not passes(changed(certificate, renamed), model)
    same = changed(certificate, lambda arrays: {"node_region": arrays["node_region"]})
    assert passes(same, model)


def test_numbers_of_fewer_bits_are_read_in_full(tmp_path: Path) -> None:
    """Boxes in float16 are boxes of float64 numbers: calculations are in no less."""
    network, balls, _ = case(0, (3, 5, 3), share=0.5)
    model, certificate = certified(tmp_path, network, balls)

    def shorter(arrays: Arrays) -> Arrays:
        return {name: arrays[name].astype(np.float16) for name in ("box_lower", "box_upper")}

    def again(arrays: Arrays) -> Arrays:
        return {name: array.astype(np.float64) for name, array in shorter(arrays).items()}

    short = check(changed(certificate, shorter), model)
    assert short == check(changed(certificate, again), model)


@pytest.mark.parametrize("by_crown", [False, True])
def test_bounds_of_a_box_do_not_depend_on_those_beside_it(by_crown: bool) -> None:
    generator = np.random.default_rng(0)
    network = float32_network(generator, (3, 9, 8, 3))
    read = Network(3, [[Step(a.weight, a.bias)] for a in network.layers], [9, 8, 3])
    lower = generator.uniform(-1, 0.5, size=(40, 3))
    upper = lower + generator.uniform(0, 1, size=(40, 3))
    together = hidden_bounds(read, lower, upper, by_crown)
    for place in range(40):
        at = slice(place, place + 1)
        alone = hidden_bounds(read, lower[at], upper[at], by_crown)
        for one, other in zip(together.hidden, alone.hidden, strict=True):
            np.testing.assert_allclose([each[at] for each in one], other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [200, 1000])
def test_the_constant_of_a_deep_chain_is_not_rounded_upwards(depth: int) -> None:
    """Each layer adds 0.6 of the last place of the last bias."""
    tiny, one = 0.6 * 2.0**-52, np.ones((1, 1))
    layers = [[Step(one * (place > 0), np.array([tiny]))] for place in range(depth)]
    network = Network(1, [*layers, [Step(one, np.ones(1))]], [1] * (depth + 1))
    frame = hidden_bounds(network, np.zeros((1, 1)), one, by_crown=True)
    found = lower_bounds(network, one[None], frame, Choices())[0, 0]
    assert found > 1 - 1e-9
    assert Fraction(float(found)) <= 1 + depth * Fraction(tiny)


def test_nothing_is_known_of_float32_sums_that_are_too_long() -> None:
    step = Step(np.ones((1, 2)), np.zeros(1))
    ones = np.ones((1, 2))
    for terms, is_known in ((2**22, True), (2**24, False)):
        step.__dict__["terms"] = terms  # as of a matrix that no test holds
        network = Network(2, [[step]], [1])
        frame = hidden_bounds(network, ones, ones, by_crown=False)
        assert np.isfinite(float32_error(network, frame, np.ones((1, 1, 1)))).all() == is_known
