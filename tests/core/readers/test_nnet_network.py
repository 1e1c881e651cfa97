"""`.nnet` files: the network with and without their own normalisation; faults with their line."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tasks.core.bounds.linear import linear_lower_bounds
from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.readers.nnet_network import read_nnet
from tests.model_files import NNET_LINES, saved_nnet


def test_the_file_normalises_itself(tmp_path: Path) -> None:
    model = read_nnet(saved_nnet(tmp_path, NNET_LINES))
    point = np.array([[7.0, -0.5]])
    # ((7 - 5) / 10, -0.5 / 2) = (0.2, -0.25); hidden relu(-0.2, -0.125, 0.3) = (0, 0, 0.3)
    np.testing.assert_allclose(model.normalised([[0.2, -0.25]]), [[0.4]])
    np.testing.assert_allclose(model.network(point), [[0.4 * 4 + 7.5]])
    assert (model.lower.tolist(), model.upper.tolist()) == ([0, -1], [10, 1])


def test_without_hidden_layers(tmp_path: Path) -> None:
    lines = ["1,2,1,2", "2,1", *NNET_LINES[4:9], "1.0,-2.0", "0.25"]
    model = read_nnet(saved_nnet(tmp_path, lines))
    np.testing.assert_allclose(model.network([[7.0, -0.5]]), [[(0.2 + 0.5 + 0.25) * 4 + 7.5]])


def test_bounds_hold_where_means_cancel(tmp_path: Path) -> None:
    """Against fractions: the first input is its mean of 10^9 and a little more."""
    lines = ["1,2,1,2", "2,1", *NNET_LINES[4:9], "1.0,-2.0", "0.25"]
    lines[5] = "1000000000.1,0.0,7.5"
    network = read_nnet(saved_nnet(tmp_path, lines)).network
    point = np.array([[1e9 + 3, -0.5]])
    first = (Fraction(1e9 + 3) - Fraction(1000000000.1)) / 10
    exact = (first + Fraction(1, 2) + Fraction(1, 4)) * 4 + Fraction(15, 2)
    rows = np.array([[1.0], [-1.0]])
    lower, upper = linear_lower_bounds(network, 0, rows, [], Box(point, point))[0]
    assert Fraction(float(lower)) <= exact <= -Fraction(float(upper))
    assert -upper - lower < 1e-4


@pytest.mark.parametrize(
    ("line", "content", "message"),
    [
        (3, "2,2,1", "line 3: expected 4 finite numbers, the numbers of layers"),
        (3, "2,2.5,1,3", "line 3: .*positive whole numbers"),
        (4, "2,3,2", "line 4: the sizes run from 2 to 2, the line before says 2 inputs and 1 out"),
        (8, "5.0,0.0", "line 8: expected 3 finite numbers, the means of the inputs and of the out"),
        (9, "10.0,0.0,4.0", "line 9: a range is 0"),
        (11, "-1.0,x,", "line 11: expected the weights of one unit: could not convert .* 'x'"),
        (11, "-1.0,nan,", "line 11: expected the weights of one unit: could not convert .* 'nan'"),
        (11, "-1.0,1_0,", "line 11: expected the weights of one unit: could not convert .* '1_0'"),
        (11, "-1.0,\u0661,", "line 11: expected the weights of one unit: could not convert .*"),
        (11, "-1.0,1e999,", "line 11: expected 2 finite numbers, the weights of one unit; found 1"),
        (12, "1,2,3", "line 12: expected 2 finite numbers, the weights of one unit; found 3"),
        (17, "", "line 16: the file ends here; expected the bias of one unit"),
    ],
)
def test_a_fault_is_named_with_its_line(
    line: int, content: str, message: str, tmp_path: Path
) -> None:
    lines = [*NNET_LINES[: line - 1], content, *NNET_LINES[line:]]
    path = saved_nnet(tmp_path, lines)
    with pytest.raises(CertiflowError, match=message) as caught:
        read_nnet(path)
    assert str(caught.value).startswith(f"{path}: line ")


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace("//", "// Größe", 1).encode("latin-1"),
        lambda text: text.encode("utf-16"),
    ],
)
def test_marks_and_encodings_change_nothing(
    written: Callable[[str], bytes], tmp_path: Path
) -> None:
    path = saved_nnet(tmp_path, ["// a comment", *NNET_LINES])
    plain = read_nnet(path).network
    path.write_bytes(written(path.read_text()))
    assert read_nnet(path).network.sha256 == plain.sha256


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match=r"absent\.nnet: No such file"):
        read_nnet(tmp_path / "absent.nnet")
    with pytest.raises(CertiflowError, match="line 0: the file ends here"):
        read_nnet(saved_nnet(tmp_path, [""]))
    path = tmp_path / "binary.nnet"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(CertiflowError, match="not a text file"):
        read_nnet(path)
