"""Files of VNN-LIB 2.0: what is read of them, and that the rest is refused by name and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vnnlib

from tasks.core.errors import CertiflowError
from tasks.core.properties.query import Assigned, Interface, Query
from tasks.core.properties.vnnlib import format_counterexample, read_query
from tasks.core.properties.vnnlib_two import is_version_two

VERSION = "(vnnlib-version <2.0>)"
ONE = """(declare-network f
  (declare-input X float32 [1,2])
  (declare-output Y float32 [2])
)"""  # lines 2 to 5
OTHER = """(declare-network g (isomorphic-to f)
  (declare-input A float32 [1,2])
  (declare-output B float32 [2])
)"""  # lines 6 to 9
BOX = "(assert (and (>= X[0,0] -1.0) (<= X[0,0] 1.0) (>= X[0,1] -1.0) (<= X[0,1] 1.0)))"
BOTH = f"{BOX}\n{BOX.replace('X', 'A')}"
MODEL = Interface((2,), 2)
SCALAR = "(declare-network f (declare-input X Real [2,1]) (declare-output Y Real []))"


def read(folder: Path, *lines: str, **models: Interface) -> Query:
    path = folder / "p.vnnlib"
    path.write_text("\n".join(lines) + "\n")
    return read_query(path, models or {"": MODEL})


def of_one(folder: Path, *assertions: str) -> Query:
    return read(folder, VERSION, ONE, BOX, *assertions)


def of_two(folder: Path, *assertions: str) -> Query:
    return read(folder, VERSION, ONE, OTHER, BOTH, *assertions, f=MODEL, g=MODEL)


def test_one_network(tmp_path: Path) -> None:
    """Elements are counted row by row; comments, blanks and breaks are where they please."""
    query = of_one(
        tmp_path, "(assert (or (<= Y[0] Y[1]) ; or", "(>= (* 2 Y [ 1 ]) (+ X[0, 1]\t0.5))))"
    )
    first, second = query.prop.unsafe
    np.testing.assert_array_equal(first.rows, [[1, -1, 0, 0]])
    np.testing.assert_array_equal(second.rows, [[0, -2, 0, 1]])
    assert (first.offsets, second.offsets) == (0.0, 0.5)
    np.testing.assert_array_equal(first.box.upper, [[1, 1]])
    assert [places.tolist() for places in query.columns] == [[0, 1]]
    assert not query.is_of_several
    assert [variable.name for variable in (*query.inputs, *query.outputs)] == ["X", "Y"]


def test_tensors_in_rows_and_scalars(tmp_path: Path) -> None:
    matrix = ONE.replace("[1,2]", "[2,3]").replace("[2])", "[2, 2])")
    box = "\n".join(
        f"(assert (and (>= X[{i},{j}] 0.0) (<= X[{i},{j}] {i}{j}.0)))"
        for i in range(2)
        for j in range(3)
    )
    query = read(tmp_path, VERSION, matrix, box, "(assert (<= Y[1,0] 0.0))", f=Interface((6,), 4))
    np.testing.assert_array_equal(query.prop.unsafe[0].box.upper, [[0, 1, 2, 10, 11, 12]])
    np.testing.assert_array_equal(query.prop.unsafe[0].rows, [[0, 0, 1, 0]])
    box = "(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.0) (== X[1,0] 0.5)))"
    query = read(tmp_path, VERSION, SCALAR, box, "(assert (>= Y 1.0))", f=Interface((2,), 1))
    np.testing.assert_array_equal(query.prop.unsafe[0].rows, [[-1]])


def test_equal_inputs_of_two_networks_are_one(tmp_path: Path) -> None:
    query = of_two(
        tmp_path, "(assert (== A[0,1] X[0,1]))", "(assert (<= A[0,1] 0.5))",
        "(assert (>= (- Y[0] B[0]) 0.1))", "(assert (<= (- A[0,0] X[0,0]) 0.25))",
    )  # fmt: skip
    assert [places.tolist() for places in query.columns] == [[0, 1], [2, 1]]
    (region,) = query.prop.unsafe
    np.testing.assert_array_equal(region.box.upper, [[1, 0.5, 1]])
    np.testing.assert_array_equal(region.rows, [[-1, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, -1, 0, 1]])
    np.testing.assert_array_equal(region.offsets, [0.1, -0.25])
    assert query.models == (0, 1)
    point = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(query.expanded(point), [1, 2, 3, 2])
    np.testing.assert_array_equal(query.joined(query.expanded(point)), point)


def test_a_network_equal_to_another_is_its_model(tmp_path: Path) -> None:
    lines = VERSION, ONE, OTHER.replace("isomorphic", "equal"), BOTH, "(assert (<= Y[0] B[0]))"
    for models in ({"f": MODEL}, {"": MODEL}):
        query = read(tmp_path, *lines, **models)
        assert query.models == (0, 0)
        assert [places.tolist() for places in query.columns] == [[0, 1], [2, 3]]
    with pytest.raises(
        CertiflowError, match=r"for the networks 'f', and is given 'f', 'g'; name a"
    ):
        read(tmp_path, *lines, f=MODEL, g=MODEL)


def test_contradictions_are_told_in_the_files_words(tmp_path: Path) -> None:
    query = of_two(tmp_path, "(assert (== A[0,1] X[0,1]))", "(assert (>= A[0,1] 3.0))")
    assert "line 13: X[0,1] is to be at least 3.0 and at most 1.0" in query.prop.contradiction
    assert not query.prop.unsafe


def test_counterexamples_are_printed_as_the_standard_has_them(tmp_path: Path) -> None:
    query = of_two(tmp_path, "(assert (<= Y[0] 1.0))")
    assigned = query.assigned([1.0, 2.0, 3.0, 4.0], [0.5, 0.1, -1.0, 1e-9])
    assert assigned[1] == Assigned("Y", "float32", (2,), (0.5, 0.1))
    assert format_counterexample([], [], assigned).splitlines() == [
        "X float32 [1,2]", "1.0", "2.0", "Y float32 [2]", "0.5", "0.1",
        "A float32 [1,2]", "3.0", "4.0", "B float32 [2]", "-1.0", "1e-09",
    ]  # fmt: skip


ASSERTED = {  # what is asserted on line 7, and what is said of it
    "strict": ("(assert (and (< Y[0] 1.0)))", "line 7: '<' is strict, and a point on the border"),
    "unequal": ("(assert (!= Y[0] 1.0))", "line 7: '!=' is strict"),
    "of version 1.0": ("(assert (= Y[0] 1.0))", "line 7: '=' is VNN-LIB 1.0; write =="),
    "product": ("(assert (<= (* Y[0] X[0,1]) 1.0))", "line 7: a product of variables is not"),
    "quotient": ("(assert (<= (/ Y[0] 2.0) 1.0))", "line 7: '/' is no operator; expected and, or,"),
    "index": ("(assert (<= Y[2] 1.0))", r"line 7: 'Y\[2\]' is not in the shape \[2\] of 'Y'"),
    "too few": ("(assert (<= X[0] 1.0))", r"line 7: 'X\[0\]' is not in the shape \[1, 2\] of 'X'"),
    "none": ("(assert (<= Y 1.0))", r"line 7: 'Y' is not in the shape \[2\] of 'Y'"),
    "negative": ("(assert (<= Y[-1] 1.0))", r"line 7: 'Y\[-1\]' has no indices"),
    "unknown": ("(assert (<= Z[0] 1.0))", r"line 7: 'Z\[0\]' is neither a declared tensor's"),
    "internal": ("(assert (<= Y_0 1.0))", "line 7: 'Y_0' is neither a declared tensor's element"),
    "number with index": ("(assert (<= 1[0] Y[0]))", r"line 7: '1\[0\]' is neither a declared"),
    "open": ("(assert (<= Y[0 1.0))", r"line 7: 'Y\[' has no indices"),
    "nothing": ("(assert (and))", "line 7: 'and' needs a formula"),
    "three": ("(assert (<= Y[0] Y[1] 1.0))", "line 7: '<=' compares two terms, found 3"),
    "command": ("(check-sat)", r"line 7: expected \(assert formula\), after all declarations"),
    "late": (SCALAR, r"line 7: expected \(assert formula\), after all declarations"),
    "large": ("(assert (<= Y[0] (* 1e200 1e200)))", "line 7: a number is too large"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASSERTED)
def test_an_assertion_that_is_not_read_is_named(name: str, tmp_path: Path) -> None:
    asserted, fault = ASSERTED[name]
    with pytest.raises(CertiflowError, match=fault):
        of_one(tmp_path, asserted)


HIDDEN = '(declare-hidden N float32 [1] "node")'
TWICE = "(declare-input Z float32 [1])"
DECLARED = {  # what stands for ONE, and what is said of it
    "hidden": (ONE.replace("\n)", HIDDEN + ")"), "line 4: declare-hidden: questions about hidden"),
    "initialized": (ONE.replace("[1,2]", "[1,2] initialized"), "line 3: initialized: defaults of"),
    "inputs": (ONE.replace("\n)", TWICE + ")"), "line 2: network 'f' declares 2 inputs; expected"),
    "no output": ("(declare-network f\n\n(declare-input X Real [2]))", "declares 0 outputs"),
    "type": (ONE.replace("X float32", "X int8"), "line 3: elements of type 'int8' are not"),
    "types": (ONE.replace("X float32", "X Real"), "mixes the types float32 and real"),
    "empty": (ONE.replace("[1,2]", "[1,0]"), r"line 3: the shape \[1,0\] has no elements"),
    "shape": (ONE.replace("[1,2]", "2"), r"line 3: expected \(declare-input name Real \[shape\]\)"),
    "name": (ONE.replace("f\n", "1\n"), r"line 2: expected \(declare-network name …\)"),
    "same name": (ONE.replace("Y", "f"), "line 2: 'f' is declared twice"),
    "size": (ONE.replace("[1,2]", "[1,3]"), "line 2: 'f' has 3 inputs and 2 outputs, its model 2"),
    "like none": (ONE.replace("f\n", "f (equal-to h)\n"), "line 2: 'f' is to be like 'h', which"),
    "like two": (ONE.replace("f\n", "f (equal-to h) (equal-to h)\n"), "network 'f' has more"),
    "command": ("(push 1)", "line 2: unknown command; expected declare-network, then assert"),
    "nothing": ("", "line 1: no network is declared"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_a_declaration_that_is_not_read_is_named(name: str, tmp_path: Path) -> None:
    declaration, fault = DECLARED[name]
    with pytest.raises(CertiflowError, match=fault):
        read(tmp_path, VERSION, declaration, BOX)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (("(vnnlib-version <3.0>)", ONE, BOX), "line 1: version '<3.0>' is not read; expected"),
        (("(vnnlib-version)", ONE, BOX), "line 1: version '' is not read"),
        ((VERSION, ONE), "the file asserts nothing; expected bounds of all inputs"),
        ((VERSION, ONE, "(assert (<= Y[0] 1.0))"), r"X\[0,0\] has no lower bound; assert one"),
        ((ONE, BOX), "line 1: VNN-LIB 2.0 begins with its version"),
    ],
)  # fmt: skip
def test_files_that_are_not_whole(lines: tuple[str, ...], fault: str, tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match=fault):
        read(tmp_path, *lines)


def test_models_are_those_of_the_networks(tmp_path: Path) -> None:
    lines = VERSION, ONE, OTHER, BOTH
    with pytest.raises(CertiflowError, match="networks 'f', 'g', and is given one without a name"):
        read(tmp_path, *lines)
    with pytest.raises(CertiflowError, match="networks 'f', 'g', and is given 'f', 'h'"):
        read(tmp_path, *lines, f=MODEL, h=MODEL)
    with pytest.raises(CertiflowError, match="line 6: 'g' has tensors of other shapes than 'f'"):
        read(tmp_path, VERSION, ONE, OTHER.replace("[2])", "[3])"), BOTH, f=MODEL, g=MODEL)
    image = ONE.replace("[1,2]", "[2,3]")
    with pytest.raises(CertiflowError, match=r"has the shape \[2, 3\], its model's \[3, 2\]"):
        read(tmp_path, VERSION, image, BOX, f=Interface((3, 2), 2))
    version_one = ["(declare-const X_0 Real)", "(declare-const Y_0 Real)", "(assert (<= X_0 1))"]
    with pytest.raises(
        CertiflowError, match=r"VNN-LIB 1\.0 speaks of one network, and 2 are given"
    ):
        read(tmp_path, *version_one, f=MODEL, g=MODEL)


def test_the_other_reader_reads_what_is_read(tmp_path: Path) -> None:
    """The same networks, tensors and equivalences."""
    text = "\n".join([VERSION, ONE, OTHER, BOTH, "(assert (== A[0,1] X[0,1]))"])
    query = of_two(tmp_path, "(assert (== A[0,1] X[0,1]))")
    theirs = vnnlib.parse_query_string(text).networks
    assert [each.isometric_to for each in theirs] == ["", "f"]
    for place, network in enumerate(theirs):
        for found, other in ((query.inputs, network.inputs), (query.outputs, network.outputs)):
            (only,) = other
            assert (found[place].name, list(found[place].shape)) == (only.name, only.shape)


@pytest.mark.parametrize("line", [";" * 200, "; a comment \t ", "; one\r", ";; two ;; of them"])
def test_a_long_head_of_comments_is_looked_through_once(line: str) -> None:
    """There are 2^40 ways and more to part it in what may be skipped."""
    head = "\n".join([line] * 40)
    assert not is_version_two(f"{head}\n(declare-const X_0 Real)")
    assert is_version_two(f"{head}\n(vnnlib-version <2.0>)")
