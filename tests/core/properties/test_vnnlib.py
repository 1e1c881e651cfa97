"""VNN-LIB files become the unsafe regions they describe; a fault is named with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import CertiflowError
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.specification import Property
from tasks.core.properties.vnnlib import format_counterexample, read_property
from tests.networks import random_network

UNIT_BOX = [f"(assert (and (>= X_{i} 0) (<= X_{i} 1)))" for i in range(2)]


def declared(*lines: str, num_inputs: int = 2, num_outputs: int = 2) -> str:
    names = [f"X_{i}" for i in range(num_inputs)] + [f"Y_{j}" for j in range(num_outputs)]
    return "\n".join([*(f"(declare-const {name} Real)" for name in names), *lines])


def read(folder: Path, text: str, num_inputs: int = 2, num_outputs: int = 2) -> Property:
    path = folder / "property.vnnlib"
    path.write_text(text)
    return read_property(path, num_inputs, num_outputs)


def test_one_region(tmp_path: Path) -> None:
    text = declared(
        "; a comment (with parentheses",
        "(assert (<= X_0 0.679857769)) (assert (>= X_0 -6e-1)) ; behind",
        "(assert (and (<= 0.25 X_1)",
        "             (>= .5 X_1)))",
        "(assert (<= Y_1 Y_0))",
        "(assert (>= Y_0 3.5))",
    )
    (region,) = read(tmp_path, text).unsafe
    np.testing.assert_array_equal(region.box.lower, [[-0.6, 0.25]])
    np.testing.assert_array_equal(region.box.upper, [[0.679857769, 0.5]])
    np.testing.assert_array_equal(region.rows, [[-1, 1], [-1, 0]])
    np.testing.assert_array_equal(region.offsets, [0, 3.5])


def test_linear_terms(tmp_path: Path) -> None:
    text = declared(
        *UNIT_BOX,
        "(assert (<= (+ (* 2 Y_0) (- Y_1) (* (- 0.5) 4 1) (* Y_1 3)) (- Y_0 1 (+ Y_1 2))))",
        "(assert (= Y_0 +2.))",
        "(assert (<= (+ X_0 0.5) 1))",
        "(assert (>= (* -2 X_1) (- 1)))",
    )
    (region,) = read(tmp_path, text).unsafe
    np.testing.assert_array_equal(region.rows, [[1, 3], [1, 0], [-1, 0]])
    np.testing.assert_array_equal(region.offsets, [1, -2, 2])
    np.testing.assert_array_equal(region.box.upper, [[0.5, 0.5]])


def test_alternatives_of_inputs_and_outputs_are_multiplied(tmp_path: Path) -> None:
    text = declared(
        *UNIT_BOX,
        "(assert (or (and (<= X_0 0.1) (<= Y_0 7)) (and (>= X_0 0.9))))",
        "(assert (or (<= Y_0 Y_1) (and (or (<= Y_0 1) (<= Y_0 2)) (<= Y_1 3))))",
    )
    regions = read(tmp_path, text).unsafe
    assert [region.box.lower[0, 0] for region in regions] == [0, 0, 0, 0.9, 0.9, 0.9]
    assert [region.box.upper[0, 0] for region in regions] == [0.1, 0.1, 0.1, 1, 1, 1]
    assert [region.offsets.tolist() for region in regions] == [
        [-7, 0],
        [-7, -3, -1],
        [-7, -3, -2],
        [0],
        [-3, -1],
        [-3, -2],
    ]


def test_impossible_alternatives_are_left_out(tmp_path: Path) -> None:
    text = declared(
        *UNIT_BOX,
        "(assert (or (<= X_0 0.1) (>= X_0 0.9)))",
        "(assert (or (<= X_0 0.2) (>= X_0 0.8)))",
    )
    regions = read(tmp_path, text).unsafe
    assert [region.box.upper[0, 0] for region in regions] == [0.1, 1]


def test_a_region_of_inputs_alone_is_unsafe_everywhere(tmp_path: Path) -> None:
    (region,) = read(tmp_path, declared(*UNIT_BOX)).unsafe
    np.testing.assert_array_equal(region.excess(np.array([[5.0, -5.0]])), [-1])


def test_relations_of_inputs_speak_of_the_network_with_its_inputs(tmp_path: Path) -> None:
    text = declared(
        *UNIT_BOX,
        "(assert (or (<= Y_0 Y_1) (and (<= (+ X_0 X_1) 0.5) (>= Y_0 (* 2 X_1)))))",
    )
    plain, mixed = read(tmp_path, text).unsafe
    np.testing.assert_array_equal(plain.rows, [[1, -1, 0, 0]])
    np.testing.assert_array_equal(mixed.rows, [[0, 0, 1, 1], [-1, 0, 0, 2]])
    np.testing.assert_array_equal(mixed.offsets, [-0.5, 0])


def test_regions_hold_the_points_that_the_text_holds(tmp_path: Path) -> None:
    text = declared(
        *UNIT_BOX,
        "(assert (or (and (<= X_0 0.5) (or (<= Y_0 Y_1) (>= Y_0 (+ X_1 0.1)))) (>= Y_1 0.2)))",
        "(assert (or (>= X_1 0.3) (<= (+ Y_0 Y_1) 0)))",
    )
    network = random_network(np.random.default_rng(2), (2, 6, 2))
    points = np.random.default_rng(1).uniform(-0.1, 1.1, size=(500, 2))
    x, y = points.T, network(points).T
    expected = ((points >= 0) & (points <= 1)).all(axis=1)
    expected &= ((x[0] <= 0.5) & ((y[0] <= y[1]) | (y[0] >= x[1] + 0.1))) | (y[1] >= 0.2)
    expected &= (x[1] >= 0.3) | (y[0] + y[1] <= 0)
    outputs = network.with_inputs()(points)
    found = np.zeros(len(points), dtype=bool)
    for region in read(tmp_path, text).unsafe:
        inside = ((points >= region.box.lower) & (points <= region.box.upper)).all(axis=1)
        found |= inside & (region.excess(outputs) <= 0)
    assert 50 < expected.sum() < 450
    np.testing.assert_array_equal(found, expected)


def test_boxes_are_shared_by_alternatives_of_outputs(tmp_path: Path) -> None:
    first, second = read(
        tmp_path, declared(*UNIT_BOX, "(assert (or (<= Y_0 Y_1) (<= Y_1 0)))")
    ).unsafe
    assert first.box is second.box


FAULTS: dict[str, tuple[list[str], str]] = {
    "open": (["(assert (<= Y_0 Y_1)"], r"line 7: '\(' is never closed"),
    "closed twice": (["(assert (<= Y_0 Y_1)))"], r"line 7: '\)' closes nothing"),
    "outside": (["", "assert"], "line 8: 'assert' stands outside of parentheses"),
    "too deep": (["(" * 101], "line 7: nested more than 100 deep"),
    "command": (["(push 1)"], "line 7: unknown command; expected declare-const or assert"),
    "empty": (["()"], "line 7: unknown command"),
    "declaration": (["(declare-const Z_0 Real)"], r"line 7: expected \(declare-const X_0 Real\)"),
    "type": (["(declare-const X_7 Int)"], r"line 7: expected \(declare-const X_0 Real\)"),
    "declared twice": (["(declare-const X_1 Real)"], "line 7: X_1 is declared twice"),
    "function": (["(declare-fun X_7 (Real) Real)"], r"line 7: expected \(declare-const X_0 Real\)"),
    "second question": (
        ["(check-sat)", "(assert (<= Y_0 1))"],
        "line 8: the file asserts after 'check-sat' or 'exit'",
    ),
    "version 2.0": (
        ["(vnnlib-version <2.0>)"],
        "line 7: VNN-LIB 2.0 begins with its version",
    ),
    "assertion": (["(assert)"], "line 7: expected one formula in 'assert'"),
    "formula": (["(assert Y_0)"], "line 7: 'Y_0' is no formula; expected <=, >=, =, and, or"),
    "empty formula": (["(assert ())"], r"line 7: '\(\)' is no formula"),
    "formula in parentheses": (["(assert ((<= Y_0 1)))"], r"line 7: '\(' is not supported"),
    "strict": (["(assert (and", "(< Y_0 Y_1)))"], "line 8: '<' is not supported; expected <=, >="),
    "nothing in and": (["(assert (and))"], "line 7: 'and' needs a formula"),
    "three terms": (["(assert (<= 0 Y_0 1))"], "line 7: '<=' compares two terms, found 3"),
    "variable": (["(assert (<= Y_2 1))"], "line 7: 'Y_2' is neither a declared variable nor a num"),
    "nan": (["(assert (<= Y_0 nan))"], "line 7: 'nan' is neither a declared variable nor a number"),
    "Arabic digits": (
        ["(assert (<= Y_0 \u0661))"],
        "line 7: '\u0661' is neither a declared variable",
    ),
    "Arabic index": (
        ["(declare-const X_\u0662 Real)"],
        r"line 7: expected \(declare-const X_0 Real",
    ),
    "underscore": (["(assert (<= Y_0 1_0))"], "line 7: '1_0' is neither a declared variable nor"),
    "infinite": (["(assert (<= Y_0 1e999))"], "line 7: a number is too large"),
    "infinite sum": (["(assert (<= (+ Y_0 X_0) 1e999))"], "line 7: a number is too large"),
    "infinite by arithmetic": (["(assert (<= Y_0 (* 1e200 1e200)))"], "line 7: a number is too la"),
    "exponent": (
        ["(assert (<= Y_0 (+ 1 1e999999999)))"],
        "line 7: '1e999999999' is too long for ar",
    ),
    "digits": (
        ["(assert (<= Y_0 (+ 1 1" + 2000 * "0" + ")))"],
        "line 7: '10*' is too long for ari",
    ),
    "factors": (
        ["(assert (<= Y_0 (* " + "1e-1000 " * 5000 + ")))"],
        "line 7: a number is too large",
    ),
    "weight": (
        ["(assert (<= (+ (* 0.1 0.12345678901234567 Y_0) (* 3 Y_1)) 0))"],
        "line 7: the weight of Y_0 is computed, and float64 cannot hold it; write it as one dec",
    ),
    "product": (["(assert (<= (* Y_0", "Y_1) 1))"], "line 7: a product of variables is not linear"),
    "quotient": (["(assert (<= (/ Y_0 2) 1))"], "line 7: '/' is no linear term"),
    "no terms": (["(assert (<= (+) 1))"], r"line 7: '\+' is no linear term"),
    "term in parentheses": (["(assert (<= ((+ 1 2)) Y_0))"], r"line 7: '\(' is no linear term"),
    "too many alternatives": (
        ["(assert (or (<= Y_0 1) (<= Y_0 2)))"] * 15,
        "line 21: 32,768 alternatives; at most 20,000 can be verified",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    lines, message = FAULTS[name]
    with pytest.raises(CertiflowError, match=message) as caught:
        read(tmp_path, declared(*UNIT_BOX, *lines))
    assert str(caught.value).startswith(f"{tmp_path / 'property.vnnlib'}: line ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (declared(num_inputs=7), "declares 7 inputs, the network has 2"),
        (declared(num_outputs=1), "declares 1 outputs, the network has 2"),
        (declared().replace("X_1", "X_2"), "X_1 is not declared"),
        (declared("(assert (<= X_0 1))", "(assert (>= X_0 1))"), "X_1 has no lower bound"),
        (declared(UNIT_BOX[0], "(assert (<= 0 X_1))"), "X_1 has no upper bound; assert one"),
        (declared(), "the file asserts nothing"),
    ],
)
def test_what_a_file_lacks_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match=message):
        read(tmp_path, text)


# The relation, and the bounds of X_0 that follow from it by hand: float64 holds 1, 0.5 and 3, but
# not 0.3, whose neighbours are 0.3 (below it) and 0.1 + 0.2, nor 1 / 3.
COMPUTED_BOUNDS = {
    "(<= (+ X_0 1e16) (+ 1e16 1))": (-9, 1),
    "(<= (+ X_0 0.1 0.2) 1.3)": (-9, 1),
    "(>= (+ X_0 0.1 0.2) 0.3)": (0, 9),
    "(<= (* 1e-200 (* 1e-200 X_0)) 3e-400)": (-9, 3),
    "(<= (* 1e200 (* 1e200 0.0 X_0)) 1)": (-9, 9),
    "(<= (* 0.1 X_0) 0.3)": (-9, 3),
    "(<= X_0 (- 1 0.5))": (-9, 0.5),
    "(<= X_0 (+ 0.1 0.2))": (-9, 0.1 + 0.2),
    "(>= X_0 (+ 0.1 0.2))": (0.3, 9),
    "(= X_0 (+ 0.1 0.2))": (0.3, 0.1 + 0.2),
    "(<= (* -3 X_0) 1)": (-0.33333333333333337, 9),
    "(>= (- 0.3) X_0)": (-9, -0.3),
    "(>= (* 1 0.3) (+ X_0 0.0))": (-9, 0.3),
    "(= 0.3 X_0)": (0.3, 0.3),
}


@pytest.mark.parametrize("relation", COMPUTED_BOUNDS)
def test_computed_bounds_are_exact_or_rounded_outwards(relation: str, tmp_path: Path) -> None:
    text = declared("(assert (and (<= -9 X_0) (>= 9 X_0)))", f"(assert {relation})", num_inputs=1)
    (region,) = read(tmp_path, text, num_inputs=1).unsafe
    assert (region.box.lower[0, 0], region.box.upper[0, 0]) == COMPUTED_BOUNDS[relation]


# The relation, and its row and offset by hand.
ROWS = {
    "(<= Y_0 (+ Y_1 0.3))": ([1, -1], -0.3),
    "(>= Y_0 (+ Y_1 0.3))": ([-1, 1], 0.3),
    "(<= Y_0 (+ Y_1 0.1 0.2))": ([1, -1], -(0.1 + 0.2)),
    "(>= Y_0 (+ Y_1 0.1 0.2))": ([-1, 1], 0.3),
    "(<= (* 0.1 Y_0) (* 0.7 Y_1))": ([0.1, -0.7], 0),
    "(<= (* 0.1 0.1 Y_0) (* 0.7 Y_1))": ([1, -70], 0),
    "(<= (+ (* 0.1 Y_0) (* 0.2 Y_0) (* -1.2 Y_1)) 0.3)": ([1, -4], -1),
    "(<= (* 1e-200 (* 1e-200 Y_0)) 2e-400)": ([1, 0], -2),
    "(<= (+ Y_0 1e16) (+ 1e16 1))": ([1, 0], -1),
    "(<= (* 0e5 Y_0) (- Y_1 0.00000000000000000000))": ([0, -1], 0),
}


@pytest.mark.parametrize("relation", ROWS)
def test_rows_are_exact_or_relaxed(relation: str, tmp_path: Path) -> None:
    (region,) = read(tmp_path, declared(*UNIT_BOX, f"(assert {relation})")).unsafe
    row, offset = ROWS[relation]
    np.testing.assert_array_equal(region.rows, [row])
    np.testing.assert_array_equal(region.offsets, [offset])


def test_a_script_for_solvers_is_read(tmp_path: Path) -> None:
    assertions = [*UNIT_BOX, "(assert (<= Y_0 Y_1))"]
    plain = declared(*assertions)
    functions = plain.replace("declare-const", "declare-fun").replace(" Real", " () Real")
    script = f"(set-logic QF_LRA)\n{functions}\n(check-sat)\n(get-model)\n(exit)\n"
    assert read(tmp_path, script).sha256 == read(tmp_path, plain).sha256


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    plain = declared(*UNIT_BOX)
    assert read(tmp_path, "\ufeff" + plain).sha256 == read(tmp_path, plain).sha256


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_line_break_of_any_kind_ends_a_comment(end: str, tmp_path: Path) -> None:
    """What stands behind a carriage return is an alternative more, not part of the comment."""
    text = declared(*UNIT_BOX, f"(assert (or (<= Y_0 0) ; first{end} (>= Y_1 1)))")
    path = tmp_path / "property.vnnlib"
    path.write_bytes(text.encode())
    assert len(read_property(path, 2, 2).unsafe) == 2


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1251"])
def test_comments_may_be_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    comment = "Größe" if encoding == "latin-1" else "размер"
    path = tmp_path / "property.vnnlib"
    path.write_bytes(f"; {comment}\n{declared(*UNIT_BOX)}\n; {comment}\n".encode(encoding))
    assert read_property(path, 2, 2).sha256 == read(tmp_path, declared(*UNIT_BOX)).sha256


@pytest.mark.parametrize(
    ("assertions", "said"),
    [
        (["(assert (<= X_1 -0.5))"], "line 7: X_1 is to be at least 0.0 and at most -0.5"),
        (["(assert (or (<= X_1 -0.5)", "(>= X_0 2)))"], "line 8: X_0 is to be at least 2.0"),
    ],
)
def test_bounds_that_no_input_satisfies(assertions: list[str], said: str, tmp_path: Path) -> None:
    found = read(tmp_path, declared(*UNIT_BOX, *assertions))
    assert not found.unsafe
    assert said in found.contradiction


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match=r"absent\.vnnlib: No such file or directory"):
        read_property(tmp_path / "absent.vnnlib", 1, 1)
    path = tmp_path / "binary.vnnlib"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(CertiflowError, match="not a text file"):
        read_property(path, 1, 1)


def test_many_alternatives_of_inputs(tmp_path: Path) -> None:
    boxes = [f"(and (>= X_0 {i}) (<= X_0 {i + 0.5}) (<= X_1 {i}))" for i in range(3000)]
    bounds = ["(assert (>= X_1 0))", f"(assert (or {' '.join(boxes)}))", "(assert (<= Y_0 0))"]
    regions = read(tmp_path, declared(*bounds)).unsafe
    assert len(regions) == 3000
    assert regions[2000].box.upper.tolist() == [[2000.5, 2000]]


def test_a_counterexample_in_the_competitions_format() -> None:
    network = ReluNetwork((Affine(np.array([[1.0, 1.0]]), np.zeros(1)),))
    point = np.array([[0.1, -2e-9]], dtype=np.float64)
    assert format_counterexample(point, network(point)) == (
        "((X_0 0.1)\n (X_1 -2e-09)\n (Y_0 0.099999998))"
    )
