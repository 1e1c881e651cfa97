"""Questions about two models as a user asks them: `verify --equivalent`, `--network`, lists."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from flows.actions.verify_command import read_instances
from tasks.core.errors import CertiflowError
from tasks.core.networks.network import Affine, ReluNetwork
from tests.command import certiflow, clean_environment, error_of, misuse, refusal
from tests.flow_project import flow_project
from tests.networks import random_network
from tests.soundness.cases import single, singled
from tests.soundness.writing import written_onnx

EQUIVALENT = ("verify", "--equivalent", "old.onnx", "new.onnx")
MOVED = 0.25  # the first output, everywhere
QUESTION = """(vnnlib-version <2.0>)
(declare-network old (declare-input X float32 [1,64]) (declare-output Y float32 [1,10]))
(declare-network new (isomorphic-to old)
  (declare-input A float32 [1,64]) (declare-output B float32 [1,10]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return clean_environment(tmp_path_factory.mktemp("prefect"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two models of digits, and files that ask whether the first output moves by 0.3 and 0.2."""
    old = singled(random_network(np.random.default_rng(0), (64, 16, 10)))
    last = old.layers[-1]
    bias = single(last.bias + np.eye(10)[0] * MOVED)
    new = ReluNetwork((*old.layers[:-1], Affine(last.weight, bias)))
    for name, network in (("old", old), ("new", new)):
        written_onnx(tmp_path, network).rename(tmp_path / f"{name}.onnx")
    for name, delta in (("unsat", 0.3), ("sat", 0.2)):
        (tmp_path / f"{name}.vnnlib").write_text(QUESTION + "\n".join(asserted(delta)))
    return tmp_path


def asserted(delta: float) -> list[str]:
    lines = [f"(assert (>= (- B[0,0] Y[0,0]) {delta}))"]
    for place in range(64):
        lines.append(f"(assert (and (>= X[0,{place}] 0.0) (<= X[0,{place}] 1.0)))")
        lines.append(f"(assert (== A[0,{place}] X[0,{place}]))")
    return lines


@pytest.mark.parametrize(("delta", "verdict"), [("0.3", "robust"), ("0.2", "falsified")])
def test_equivalence_over_a_box_and_over_all_inputs_of_data(
    delta: str, verdict: str, project: Path, environment: dict[str, str]
) -> None:
    for where, words in (
        (("--box", "0", "1"), "all inputs from 0 to 1"),
        (("--data", "digits"), "all images like those of digits"),
    ):
        arguments = (*EQUIVALENT, "--delta", delta, *where, "--json", "out.json")
        result = certiflow(project, environment, *arguments)
        assert (result.returncode, result.stdout) == (0, f"{verdict}\n"), result.stderr
        assert words in result.stderr
        found = json.loads((project / "out.json").read_text())
        assert (found["old"], found["new"], found["delta"]) == (
            "old.onnx",
            "new.onnx",
            float(delta),
        )
        (row,) = found["results"]
        assert (row["inputs"], row["verdict"]) == (words, verdict)
        if verdict == "robust":
            assert 0.25 <= row["moves_less_than"] <= 0.3
            assert "every output moves by less than 0.25" in result.stderr
        else:
            assert row["difference"]["output"] == 0
            assert row["difference"]["by"] == pytest.approx(MOVED, abs=1e-5)
            assert len(row["difference"]["input"]) == 64
            assert "output 0 is" in result.stderr


def test_equivalence_around_test_points(project: Path, environment: dict[str, str]) -> None:
    arguments = (*EQUIVALENT, "--delta", "0.3", "--data", "digits", "--samples", "3")
    arguments += ("--epsilon", "0.01", "--epsilon", "0.02", "--json", "out.json")
    result = certiflow(project, environment, *arguments)
    assert result.returncode == 0, result.stderr
    assert "6 questions" in result.stdout
    found = json.loads((project / "out.json").read_text())["results"]
    assert [row["epsilon"] for row in found] == [0.01, 0.02] * 3
    assert {row["verdict"] for row in found} == {"robust"}
    assert len({row["index"] for row in found}) == 3


def test_networks_of_a_property_by_their_names(project: Path, environment: dict[str, str]) -> None:
    models = ("--network", "old=old.onnx", "--network", "new=new.onnx")
    result = certiflow(project, environment, "verify", "--property", "unsat.vnnlib", *models)
    assert (result.returncode, result.stdout) == (0, "unsat\n"), result.stderr
    arguments = ("verify", "--property", "sat.vnnlib", *models, "--json", "out.json")
    for _ in range(2):  # also from the store
        result = certiflow(project, environment, *arguments)
        assert result.returncode == 0, result.stderr
        verdict, *lines = result.stdout.splitlines()
        assert verdict == "sat"
        found = json.loads((project / "out.json").read_text())["assigned"]
        assert [each["name"] for each in found] == ["X", "Y", "A", "B"]
        assert lines[0] == "X float32 [1,64]"
        assert [float(line) for line in lines[1:65]] == found[0]["values"] == found[2]["values"]
        assert found[3]["values"][0] - found[1]["values"][0] >= 0.2
    result = certiflow(project, environment, "verify", "--property", "sat.vnnlib", *models[:2])
    assert "needs models for the networks 'old', 'new', and is given 'old'" in error_of(result)


def test_lists_with_several_networks_and_packed_files(
    project: Path, environment: dict[str, str]
) -> None:
    for name in ("new.onnx", "sat.vnnlib"):
        (project / f"{name}.gz").write_bytes(gzip.compress((project / name).read_bytes()))
        (project / name).unlink()
    both = "[('old', 'old.onnx'), ('new', 'new.onnx')]"
    lines = [f'"{both}",unsat.vnnlib,20', f'"{both}",sat.vnnlib,20', "old.onnx,sat.vnnlib.gz,20"]
    (project / "i.csv").write_text("\n".join(lines))
    result = certiflow(project, environment, "verify", "--csv", "i.csv", "--results", "out.csv")
    assert result.returncode == 0, result.stderr
    with (project / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["verdict"] for row in rows] == ["unsat", "sat", "error"]
    assert [row["network"] for row in rows] == [both, both, "old.onnx"]


@pytest.mark.parametrize(
    "networks",
    [
        "[]", "[('f', 'a.onnx')", "[('f',)]", "[('f', 1)]", "[('', 'a.onnx')]", "['fa']",
        "[('f', 'a.onnx'), ('f', 'b.onnx')]", "[('f', open('a'))]", "[" * 500,
    ],
)  # fmt: skip
def test_what_is_no_list_of_networks_is_refused(networks: str, tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_text(f'"{networks}",p.vnnlib,20\n')
    with pytest.raises(CertiflowError, match=r"line 1: .*several networks as"):
        read_instances(path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*EQUIVALENT, "--box", "0", "1"), "go together"),
        ((*EQUIVALENT, "--delta", "1"), "which inputs"),
        ((*EQUIVALENT, "--delta", "1", "--box", "0", "1", "--data", "digits"), "which inputs"),
        ((*EQUIVALENT, "--delta", "1", "--box", "0", "1", "--epsilon", "1"), "--data and"),
        ((*EQUIVALENT, "--delta", "1", "--box", "0", "1", "--model", "m.onnx"), "name models"),
        ((*EQUIVALENT, "--delta", "1", "--property", "p.vnnlib"), "give --model with"),
        (("verify", "--property", "p", "--model", "m.onnx", "--network", "f=m.onnx"), "--network"),
        (("verify", "--data", "digits", "--epsilon", "1", "--network", "f=m.onnx"), "--model"),
        (("verify", "--property", "p", "--model", "m.onnx", "--box", "0", "1"), "--box goes with"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in misuse(monkeypatch, *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*EQUIVALENT, "--delta", "0", "--box", "0", "1"), "delta is 0: expected a positive"),
        ((*EQUIVALENT, "--delta", "1", "--box", "1", "0"), "the box is from 1 to 0: expected"),
        ((*EQUIVALENT, "--delta", "1", "--data", "no.npz"), "no.npz"),
        ((*EQUIVALENT, "--delta", "1", "--data", "digits", "--epsilon", "-1"), "epsilon is -1"),
        ((*EQUIVALENT, "--delta", "1", "--data", "digits", "--epsilon", "0", "--samples", "999"),
         "--samples is 999: expected at most 360"),
        (("verify", "--equivalent", "no.onnx", "new.onnx", "--delta", "1", "--box", "0", "1"),
         "no.onnx: No such file"),
        (("verify", "--property", "sat.vnnlib", "--network", "old"), "old: expected NAME=FILE"),
    ],
)  # fmt: skip
def test_what_a_user_can_cause_is_one_line(
    arguments: tuple[str, ...], said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flow_project(project):
        assert said in refusal(monkeypatch, *arguments)
