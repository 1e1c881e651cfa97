"""Certificates are written of what is proved, pass the checker, and are tried on other networks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx.helper import make_node

from tasks.checker.certificate import CROWN, INTERVALS, MULTIPLIERS
from tasks.checker.check import check
from tasks.core.certificates import certify
from tasks.core.certificates.certify import (
    Balls,
    certify_balls,
    certify_property,
    check_same,
    provable,
)
from tasks.core.certificates.fixed_point import settled
from tasks.core.certificates.proofs import WHOLE
from tasks.core.certificates.reading import proved_in
from tasks.core.certificates.transfer import transferred
from tasks.core.certificates.writing import write_certificate
from tasks.core.dual.choices import Choices
from tasks.core.errors import CertiflowError
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tests.certified import RESOURCES, certified, float32_network, saved
from tests.checker.changes import case
from tests.model_files import saved_onnx
from tests.oracle import least_excess


def kinds(certificate: Path) -> set[int]:
    with np.load(certificate) as file:
        return set(file["node_kind"].tolist())


@pytest.mark.parametrize(
    ("widths", "share", "kind"),
    [
        ((3, 5, 3), 0.1, INTERVALS),
        ((2, 6, 6, 3), 0.99, CROWN),
        ((15, 8, 8, 3), 0.97, MULTIPLIERS),
    ],
)
def test_each_way_of_proving_has_its_kind(
    widths: tuple[int, ...], share: float, kind: int, tmp_path: Path
) -> None:
    network, balls, _ = case(3, widths, share)
    model, certificate = certified(tmp_path, network, balls)
    assert kind in kinds(certificate)
    assert [result.proved for result in check(certificate, model)] == [True]


def test_certificates_of_a_property_name_it_and_are_of_it_alone(tmp_path: Path) -> None:
    network = ReluNetwork(
        (Affine(np.eye(2), np.zeros(2)), Affine(np.ones((1, 2)), np.array([0.5])))
    )
    model, prop = saved(tmp_path, network), tmp_path / "p.vnnlib"
    box = "".join(f"(assert (>= X_{i} -1))\n(assert (<= X_{i} 1))\n" for i in (0, 1))
    prop.write_text(f"{box}(assert (<= Y_0 0.25))")
    certificate = tmp_path / "c.npz"
    result = certify_property(model, prop, certificate, timeout_seconds=5)
    assert (result.name, result.proved) == ("p", True)
    assert check(certificate, model, prop, exact=True)[0].proved
    prop.write_text(f"{box}(assert (<= Y_0 0.75))")  # reached at the origin
    with pytest.raises(CertiflowError, match=r"nothing was proved of model\.onnx in 2 s"):
        certify_property(model, prop, certificate, timeout_seconds=2)


def test_what_the_checker_does_not_read_has_no_certificate(tmp_path: Path) -> None:
    model = saved_onnx(tmp_path, [make_node("Sigmoid", ["x"], ["y"])])
    balls = Balls(["0"], np.array([0]), Box(np.zeros((1, 4)), np.ones((1, 4))), np.array([0]))
    with pytest.raises(CertiflowError, match=r"Sigmoid.*there are no certificates of it"):
        certify_balls(model, balls, tmp_path / "c.npz", timeout_seconds=1, resources=RESOURCES)


def test_balls_that_are_not_robust_are_left_out(tmp_path: Path) -> None:
    network, robust, _ = case(1, (2, 6, 6, 3), share=0.9)
    center = (robust.boxes.lower + robust.boxes.upper) / 2
    boxes = Box(
        np.concatenate([robust.boxes.lower, center - 3]),
        np.concatenate([robust.boxes.upper, center + 3]),
    )
    both = Balls(["in", "out"], np.repeat(robust.labels, 2), boxes, np.array([0, 1]))
    model, certificate = certified(tmp_path, network, both)
    assert [(result.name, result.proved) for result in check(certificate, model)] == [("in", True)]


def test_a_ball_of_several_boxes_needs_all_of_them(tmp_path: Path) -> None:
    network, robust, _ = case(1, (2, 6, 6, 3), share=0.9)
    boxes = Box(
        np.concatenate([robust.boxes.lower, robust.boxes.lower - 3]),
        np.concatenate([robust.boxes.upper, robust.boxes.upper + 3]),
    )
    balls = Balls(["both"], robust.labels, boxes, np.array([0, 0]))
    _, certificate = certified(tmp_path, network, balls)
    assert proved_in(certificate) == {}


def test_proofs_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    network, balls, _ = case(3, (15, 8, 8, 3), share=0.97)
    model, certificate = certified(tmp_path, network, balls)
    (proved,) = proved_in(certificate).values()
    assert proved.is_of(int(balls.labels[0]), balls.boxes)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    header = {"names": ["0"], "network": digest, "network_file": model.name}
    boxes = {
        "box_lower": balls.boxes.lower,
        "box_upper": balls.boxes.upper,
        "box_question": balls.owners.astype(np.int32),
        "question_label": balls.labels.astype(np.int32),
    }
    again = tmp_path / "again.npz"
    write_certificate(again, header, boxes, proved.proofs)
    assert again.read_bytes() == certificate.read_bytes()


def test_proofs_hold_of_a_network_nearby_and_not_of_another(tmp_path: Path) -> None:
    network, balls, _ = case(3, (15, 8, 8, 3), share=0.8)
    _, certificate = certified(tmp_path, network, balls)
    assert MULTIPLIERS in kinds(certificate) or CROWN in kinds(certificate)
    generator = np.random.default_rng(0)
    near = ReluNetwork(
        tuple(
            Affine(
                (a.weight * generator.uniform(0.999, 1.001, a.weight.shape)).astype(np.float32)
                + 0.0,
                a.bias,
            )
            for a in network.layers
        )
    )
    nearby = tmp_path / "near"
    nearby.mkdir()
    results, proofs = transferred(saved(nearby, near), certificate, balls)
    assert [result.proved for result in results] == [True]
    assert list(proofs) == ["0"]
    far = float32_network(np.random.default_rng(9), (15, 8, 8, 3))
    assert transferred(saved(nearby, far), certificate, balls) == ([], {})


def test_proofs_are_tried_on_the_same_question_alone(tmp_path: Path) -> None:
    network, balls, _ = case(1, (2, 6, 6, 3), share=0.5)
    model, certificate = certified(tmp_path, network, balls)
    assert len(transferred(model, certificate, balls)[0]) == 1
    moved = Box(balls.boxes.lower, balls.boxes.upper + 1e-9)
    for other in (
        replace(balls, names=["1"]),
        replace(balls, labels=(balls.labels + 1) % 3),
        replace(balls, boxes=moved),
    ):
        assert transferred(model, certificate, other) == ([], {})
    with pytest.raises(CertiflowError, match="no certificate of balls"):
        transferred(model, model, balls)


def test_settled_choices_are_those_that_are_written() -> None:
    generator = np.random.default_rng(0)
    choices = Choices(
        generator.uniform(-0.1, 1.1, (2, 5)).astype(np.float32),
        generator.exponential(size=(2, 5)).astype(np.float32),
        generator.uniform(size=(2, 3)).astype(np.float32),
        generator.normal(size=(2, 3)).astype(np.float32),
        generator.normal(size=(2, 4)).astype(np.float32),
        np.zeros((2, 0), dtype=np.float32),
    )
    once = settled(choices)
    for one, two in zip(once.parts(), settled(once).parts(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    np.testing.assert_allclose(once.slopes, choices.slopes.clip(0, 1), atol=2.0**-16)
    np.testing.assert_allclose(once.levels, choices.levels, atol=2.0**-14)


def test_inputs_that_are_normalised_first_have_no_planes(tmp_path: Path) -> None:
    """As of tables: the first layer is of several steps."""
    network, balls, _ = case(3, (15, 8, 8, 3), share=0.95)
    first, *others = network.layers
    mean = np.full(15, 0.25, dtype=np.float32)
    nodes = [make_node("Sub", ["x", "mean"], ["h"]), make_node("Identity", ["h"], ["hh"])]
    constants = {"mean": mean}
    value = "hh"
    for place, layer in enumerate([first, *others]):
        bias = layer.bias + (layer.weight @ mean if place == 0 else 0)
        constants |= {
            f"w{place}": layer.weight.astype(np.float32),
            f"b{place}": bias.astype(np.float32),
        }
        output = "y" if place == 2 else f"z{place}"
        given = [value, f"w{place}", f"b{place}"]
        nodes.append(make_node("Gemm", given, [output], transB=1))
        if place < 2:
            value = f"h{place}"
            nodes.append(make_node("Relu", [output], [value]))
    model = saved_onnx(tmp_path, nodes, constants, shape=(1, 15))
    certificate = tmp_path / "c.npz"
    certify_balls(model, balls, certificate, timeout_seconds=20, resources=RESOURCES)
    assert MULTIPLIERS in kinds(certificate)
    assert [result.proved for result in check(certificate, model)] == [True]
    assert [result.proved for result in check(certificate, model, exact=True)] == [True]


@pytest.mark.parametrize("seed", range(3))
def test_regions_of_several_rows_beside_those_of_one(seed: int, tmp_path: Path) -> None:
    """Output 1 is at most a little less than the oracle says it can be, in both alternatives."""
    network = float32_network(np.random.default_rng(seed), (13, 8, 6, 3))
    box = Box(np.full((1, 13), -0.4), np.full((1, 13), 0.5))
    region = UnsafeRegion(box, np.array([[0.0, 1, 0]]), np.zeros(1))
    least = least_excess(network, region) - 0.02
    model, prop, certificate = saved(tmp_path, network), tmp_path / "p.vnnlib", tmp_path / "c.npz"
    lines = [f"(assert (>= X_{i} -0.4)) (assert (<= X_{i} 0.5))" for i in range(13)]
    unsafe = f"(<= Y_1 {least})"
    either = f"(assert (or {unsafe} (and (<= Y_0 {least + 9}) {unsafe}) (and {unsafe} (<= Y_2 9))))"
    prop.write_text("\n".join([*lines, either]))
    assert certify_property(model, prop, certificate, timeout_seconds=30).proved
    assert MULTIPLIERS in kinds(certificate)
    assert check(certificate, model, prop, exact=True)[0].proved


def test_certificates_of_another_function_are_none_of_the_model(tmp_path: Path) -> None:
    network = float32_network(np.random.default_rng(0), (4, 6, 3))
    points = np.random.default_rng(1).normal(size=(8, 4))
    proved, _ = provable(saved(tmp_path, network))
    check_same(proved, network, points)
    last = network.layers[-1]
    moved = Affine(last.weight[[1, 0, 2]], last.bias[[1, 0, 2]])
    with pytest.raises(CertiflowError, match="computes something else"):
        check_same(proved, ReluNetwork((*network.layers[:-1], moved)), points)
    with pytest.raises(CertiflowError, match="5 inputs and 3 outputs, its file has 4 and 3"):
        check_same(proved, float32_network(np.random.default_rng(0), (5, 6, 3)), points)


def test_what_the_checker_does_not_pass_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ReluNetwork((Affine(np.eye(2), np.zeros(2)), Affine(np.ones((1, 2)), np.zeros(1))))
    model, prop, certificate = saved(tmp_path, network), tmp_path / "p", tmp_path / "c.npz"
    box = "".join(f"(assert (>= X_{i} -1))(assert (<= X_{i} 1))" for i in (0, 1))
    prop.write_text(f"{box}(assert (<= Y_0 0.5))")  # reached at the origin
    monkeypatch.setattr(certify, "prove", lambda *arguments: WHOLE[CROWN])
    with pytest.raises(CertiflowError, match="the checker did not pass what was found"):
        certify_property(model, prop, certificate, timeout_seconds=1)
    assert not certificate.exists()
