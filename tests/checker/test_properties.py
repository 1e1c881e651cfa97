"""The checker's own reader of VNN-LIB: no region smaller than the file's, or a refusal."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tasks.checker.properties import Part, read_property, robustness
from tasks.checker.refused import RefusedError
from tasks.core.properties.vnnlib import read_property as read_by_verifier

DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
BOX = "(assert (>= X_0 -0.1)) (assert (<= X_0 0.3)) (assert (and (>= X_1 1) (<= X_1 2)))\n"


def read(tmp_path: Path, text: str) -> list[Part]:
    path = tmp_path / "property.vnnlib"
    path.write_text(DECLARED + text)
    return read_property(path, 2, 2)


def test_decimals_make_boxes_and_regions_larger(tmp_path: Path) -> None:
    (part,) = read(tmp_path, BOX + "(assert (<= Y_0 0.1)) ; and\n(assert (>= 0.7 Y_1))")
    assert Fraction(float(part.lower[0])) <= Fraction("-0.1")
    assert Fraction(float(part.upper[0])) >= Fraction("0.3")
    np.testing.assert_allclose([part.lower, part.upper], [[-0.1, 1], [0.3, 2]])
    ((rows, offsets),) = part.regions
    assert rows.tolist() == [[1, 0], [0, 1]]
    for offset, bound in zip(offsets.tolist(), ("0.1", "0.7"), strict=True):
        assert Fraction(offset) <= -Fraction(bound) < Fraction(offset) + Fraction(1, 2**50)


def test_alternatives_make_regions_and_boxes(tmp_path: Path) -> None:
    text = BOX + "(assert (or (<= Y_0 Y_1) (and (>= X_0 0) (>= Y_0 3) (<= Y_1 1)) (>= X_0 0)))"
    first, second = read(tmp_path, text)
    assert [rows.tolist() for rows, _ in first.regions] == [[[1, -1]]]
    assert second.lower.tolist() == [0, 1]
    assert [rows.tolist() for rows, _ in second.regions] == [[[-1, 0], [0, 1]], [[0, 0]]]
    assert [offsets.tolist() for _, offsets in second.regions] == [[3, -1], [-1]]


def test_reads_the_regions_that_the_verifier_reads(tmp_path: Path) -> None:
    text = BOX + "(assert (or (and (<= Y_0 Y_1) (<= Y_1 0.25)) (and (>= Y_0 0.3))))"
    (part,) = read(tmp_path, text)
    expected = read_by_verifier(tmp_path / "property.vnnlib", 2, 2)
    for (rows, offsets), region in zip(part.regions, expected.unsafe, strict=True):
        assert rows.tolist() == region.rows.tolist()
        assert offsets.tolist() == region.offsets.tolist()
        assert (part.lower <= region.box.lower[0]).all()
        assert (part.upper >= region.box.upper[0]).all()


@pytest.mark.parametrize(
    "text",
    [
        "(assert (< Y_0 Y_1))",
        "(assert (<= Y_0 Y_2))",
        "(assert (<= Y_0 Y_-1))",
        "(assert (<= Y_0 Y_01))",
        "(assert (<= Y_0 X_0))",
        "(assert (<= (+ Y_0 Y_1) 1))",
        "(assert (<= Y_0 1) (<= Y_1 1))",
        "(assert (<= Y_0 1e999))",
        "(assert (<= Y_0 nan))",
        "(assert (<= Y_0 1)",
        "(assert (<= Y_0 1)))",
        "(assert)",
        "(assert (not (<= Y_0 1)))",
        "(assert (<= X_0 X_1))",
        "\0\0\0",
        "(" * 100_000,
    ],
)
def test_whatever_is_not_read_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"property\.vnnlib: cannot be read as VNN-LIB 1\.0"):
        read(tmp_path, BOX + text)


def test_robustness_is_a_region_for_each_other_class() -> None:
    part = robustness(np.zeros(2), np.ones(2), 1, 3)
    assert [rows.tolist() for rows, _ in part.regions] == [[[-1, 1, 0]], [[0, 1, -1]]]
    assert all(offsets.tolist() == [0] for _, offsets in part.regions)


@pytest.mark.parametrize(("label", "outputs"), [(0, 1), (2, 2), (-1, 3)])
def test_what_is_no_choice_between_classes_is_refused(label: int, outputs: int) -> None:
    """Without another class there would be no region, and nothing to exclude."""
    with pytest.raises(RefusedError, match="is no choice"):
        robustness(np.zeros(2), np.ones(2), label, outputs)
