"""`certiflow verify` and `certiflow reproduce` as a user meets them."""

from __future__ import annotations

import csv
import gzip
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pytest

from flows.actions.verify_command import read_instances
from tasks.core.errors import CertiflowError
from tasks.core.sources.download import MIRROR_VARIABLE
from tests.command import (
    CERTIFLOW,
    ROOT,
    certiflow,
    clean_environment,
    error_of,
    misuse,
    refusal,
)
from tests.flow_project import flow_project
from tests.property_files import saved_distance, saved_hard_question, saved_property


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    closed = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    return clean_environment(tmp_path_factory.mktemp("prefect"), **closed)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a model, and a property of each verdict."""
    saved_distance(tmp_path)
    saved_property(tmp_path / "sat.vnnlib", "(>= Y_0 0.9)")
    saved_property(tmp_path / "unsat.vnnlib", "(>= Y_0 1.1)")
    saved_property(tmp_path / "near.vnnlib", "(<= Y_1 0.1)", box=((0.1, 0.1), (0.0, 1.0)))
    saved_property(tmp_path / "bad.vnnlib", "(>= Y_0 (* Y_0 Y_1))")
    return tmp_path


def single(prop: str, *arguments: str) -> list[str]:
    return ["verify", "--model", "model.onnx", "--property", prop, *arguments]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_sat_is_printed_with_its_counterexample(project: Path, environment: dict[str, str]) -> None:
    result = certiflow(project, environment, *single("sat.vnnlib", "--json", "out.json"))
    assert result.returncode == 0, result.stderr
    verdict, *counterexample = result.stdout.splitlines()
    assert verdict == "sat"
    pairs = [line.strip(" ()").split() for line in counterexample]
    printed = {name: float(value) for name, value in pairs}
    assert list(printed) == ["X_0", "X_1", "Y_0", "Y_1"]
    assert "attack" in result.stderr
    found = json.loads((project / "out.json").read_text())
    assert (found["verdict"], found["decided_by"]) == ("sat", "attack")
    assert found["seconds"] > 0
    assert found["stage_seconds"]["read"] > 0
    x, y = found["counterexample"]["X"], found["counterexample"]["Y"]
    assert [*x, *y] == list(printed.values())
    session = onnxruntime.InferenceSession(project / "model.onnx")
    replayed = session.run(None, {"x": np.array([x], dtype=np.float32)})[0].ravel()
    assert replayed.tolist() == y
    assert y[0] >= 0.9


@pytest.mark.parametrize(
    ("prop", "engine", "verdict"),
    [
        ("unsat.vnnlib", "ladder", "unsat"),
        ("unsat.vnnlib", "bounds", "unsat"),
        ("unsat.vnnlib", "marabou", "unsat"),
        ("near.vnnlib", "ladder", "unknown"),
    ],
)
def test_verdict_without_a_counterexample(
    prop: str, engine: str, verdict: str, project: Path, environment: dict[str, str]
) -> None:
    result = certiflow(
        project, environment, *single(prop, "--engine", engine, "--json", "out.json")
    )
    assert (result.returncode, result.stdout) == (0, f"{verdict}\n"), result.stderr
    assert json.loads((project / "out.json").read_text())["counterexample"] is None


def test_packed_files_and_bounds_that_contradict_each_other(
    project: Path, environment: dict[str, str]
) -> None:
    saved_property(project / "none.vnnlib", "(and (<= Y_0 0) (>= X_0 2))")
    for name in ("model.onnx", "none.vnnlib", "sat.vnnlib"):
        packed = gzip.compress((project / name).read_bytes())
        (project / f"{name}.gz").write_bytes(packed)
    (project / "cut.onnx.gz").write_bytes((project / "model.onnx.gz").read_bytes()[:-9])
    (project / "bad.onnx.gz").write_bytes(gzip.compress(b"nothing"))
    lines = ["model.onnx.gz,none.vnnlib.gz,20", "model.onnx.gz,sat.vnnlib,20"]
    lines += [f"{name}.onnx.gz,sat.vnnlib.gz,20" for name in ("cut", "bad", "absent")]
    (project / "i.csv").write_text("\n".join(lines))
    result = certiflow(project, environment, "verify", "--csv", "i.csv", "--results", "out.csv")
    assert result.returncode == 0, result.stderr
    assert [row["verdict"] for row in rows(project / "out.csv")] == [
        *("unsat", "sat", "error", "error", "error")
    ]
    assert f"{project / 'cut.onnx.gz'}: truncated or not gzip" in result.stderr
    assert f"{project / 'bad.onnx.gz'}: not an ONNX file" in result.stderr
    assert "WARNING  model.onnx.gz, none.vnnlib.gz: " in result.stderr
    assert "no input is both" in result.stderr
    arguments = ["--model", "model.onnx.gz", "--property", "none.vnnlib"]
    result = certiflow(project, environment, "verify", *arguments)
    assert (result.returncode, result.stdout) == (0, "unsat\n"), result.stderr
    assert "no input is both" in result.stderr


def test_timeout_is_a_verdict_too(project: Path, environment: dict[str, str]) -> None:
    """Nothing settles the question within minutes."""
    saved_hard_question(project)
    question = ["verify", "--model", "hard/model.onnx", "--property", "hard/safe.vnnlib"]
    result = certiflow(project, environment, *question, "--timeout", "0.5", "--json", "out.json")
    assert (result.returncode, result.stdout) == (0, "timeout\n"), result.stderr
    found = json.loads((project / "out.json").read_text())
    assert found["reason"]
    assert found["counterexample"] is None
    assert found["seconds"] >= 0.4  # it was tried for as long as was allowed


def test_stored_verdict_is_used_until_fresh(project: Path, environment: dict[str, str]) -> None:
    results = [
        certiflow(project, environment, *single("sat.vnnlib", *arguments))
        for arguments in ([], [], ["--fresh"])
    ]
    assert [result.returncode for result in results] == [0, 0, 0]
    assert results[0].stdout == results[1].stdout == results[2].stdout
    assert ["verdicts.db" in result.stderr for result in results] == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (single("bad.vnnlib"), "line 9: a product of variables is not linear"),
        (single("nowhere.vnnlib"), "nowhere.vnnlib: No such file"),
        (["verify", "--model", "no.onnx", "--property", "sat.vnnlib"], "no.onnx: No such file"),
        (["verify", "--model", "sat.vnnlib", "--property", "sat.vnnlib"], "unknown kind of model"),
        (["verify", "--model", "models:/no/1", "--property", "sat.vnnlib"], "models:/no/1: MLflow"),
        (single("sat.vnnlib", "--json", "/proc/x"), "--json /proc/x"),
        (single("sat.vnnlib", "--cluster", "nonsense"), "'nonsense' is not the address of a Dask"),
        (["verify", "--csv", "no.csv", "--results", "o.csv"], "no.csv: No such file"),
        (["verify", "--csv", "model.onnx", "--results", "o.csv"], "model.onnx"),
        (["verify", "--csv", "short.csv", "--results", "o.csv"], "short.csv, line 4: 'model.onnx,"),
        (["verify", "--csv", "empty.csv", "--results", "o.csv"], "empty.csv: no instances"),
        (["reproduce", "reluplex"], f"Set {MIRROR_VARIABLE} to a file:// or http:// folder that"),
    ],
)
def test_what_a_user_can_cause_is_one_line(
    arguments: list[str],
    said: str,
    project: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    header = "network,property,timeout\n\n"
    (project / "empty.csv").write_text(header)
    (project / "short.csv").write_text(
        f"{header}model.onnx,sat.vnnlib,5\nmodel.onnx,sat.vnnlib,soon\n"
    )
    monkeypatch.setenv("HTTPS_PROXY", environment["HTTPS_PROXY"])
    monkeypatch.setenv("HTTP_PROXY", environment["HTTP_PROXY"])
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    with flow_project(project):
        assert said in refusal(monkeypatch, *arguments)


def test_an_error_has_exit_code_1_and_no_traceback(
    project: Path, environment: dict[str, str]
) -> None:
    result = certiflow(project, environment, *single("bad.vnnlib"))
    assert "line 9: a product of variables is not linear" in error_of(result)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "model.onnx"], "--property"),
        (["--property", "sat.vnnlib"], "--model"),
        (["--csv", "i.csv"], "--results"),
        (["--csv", "i.csv", "--results", "o.csv", "--property", "sat.vnnlib"], "give --model"),
        (["--csv", "i.csv", "--results", "o.csv", "--model", "model.onnx"], "--csv"),
        (["--model", "model.onnx", "--property", "p", "--results", "o.csv"], "--results"),
        (["--model", "model.onnx", "--property", "p", "--engine", "magic"], "magic"),
        (["--model", "model.onnx", "--property", "p", "--timeout", "-1"], "timeout"),
        (["--model", "model.onnx", "--property", "p", "--timeout", "nan"], "timeout"),
        (["--model", "model.onnx", "--property", "p", "--timeout", "inf"], "timeout"),
        (["--model", "model.onnx", "--property", "p", "--workers", "0"], "workers"),
        (["--model", "model.onnx", "--property", "p", "--scale", "std"], "go with --data"),
        (["--model", "model.onnx", "--property", "p", "--category-changes", "1"], "with --data"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in misuse(monkeypatch, "verify", *arguments)


def test_csv_with_a_bad_row(project: Path, environment: dict[str, str]) -> None:
    folder = project / "benchmark"
    folder.mkdir()
    lines = ["network,property,timeout", "../model.onnx,../sat.vnnlib,20", ""]
    lines += ["../model.onnx,../bad.vnnlib,20", "../model.onnx, ../unsat.vnnlib, 20.5"]
    (folder / "instances.csv").write_text("\r\n".join(lines))
    arguments = ["--csv", "benchmark/instances.csv", "--results", "out.csv", "--json", "out.json"]
    result = certiflow(project, environment, "verify", *arguments, "--workers", "2")
    assert result.returncode == 0, result.stderr
    text = (project / "out.csv").read_text()
    assert text.splitlines()[0] == "network,property,verdict,decided_by,seconds,deployed"
    written = rows(project / "out.csv")
    assert [row["network"] for row in written] == ["../model.onnx"] * 3
    assert [row["property"] for row in written] == [
        "../sat.vnnlib",
        "../bad.vnnlib",
        "../unsat.vnnlib",
    ]
    assert [row["verdict"] for row in written] == ["sat", "error", "unsat"]
    assert written[1]["decided_by"] == ""
    assert all(float(row["seconds"]) >= 0 for row in written)
    assert "WARNING  ../model.onnx, ../bad.vnnlib: " in result.stderr
    for word in ("sat", "unsat", "error", "median seconds", "3 instances"):
        assert word in result.stdout
    found = json.loads((project / "out.json").read_text())
    assert [row["verdict"] for row in found] == ["sat", "error", "unsat"]
    assert found[0]["counterexample"]["Y"][0] >= 0.9
    assert "not linear" in found[1]["reason"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_text("\ufeffmodel.onnx,sat.vnnlib, 20.5\n", encoding="utf-8")
    assert read_instances(path) == [("model.onnx", "sat.vnnlib", 20.5)]
    path.write_text("\ufeffnetwork,property,timeout\nm.onnx,p.vnnlib,1e3\n", encoding="utf-8")
    assert read_instances(path) == [("m.onnx", "p.vnnlib", 1000)]


@pytest.mark.parametrize("timeout", ["\u0662\u0660", "2_0", "nan", "inf", "1e999", "0", ""])
def test_a_time_limit_is_a_decimal(timeout: str, tmp_path: Path) -> None:
    path = tmp_path / "i.csv"
    path.write_text(f"m.onnx,p.vnnlib,{timeout}\n", encoding="utf-8")
    with pytest.raises(CertiflowError, match=r"line 1: .*with the timeout in seconds"):
        read_instances(path)


def test_killed_run_goes_on_where_it_was(project: Path, environment: dict[str, str]) -> None:
    count = 400
    for index in range(count):
        saved_property(project / f"{index}.vnnlib", f"(>= Y_0 {0.5 + index / 1000!r})")
    (project / "i.csv").write_text("".join(f"model.onnx,{i}.vnnlib,20\n" for i in range(count)))
    arguments = ["verify", "--csv", "i.csv", "--results", "o.csv", "--workers", "1"]
    process = subprocess.Popen(
        [*CERTIFLOW, *arguments], cwd=project, env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(stored(project)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (project / "o.csv").exists()
    before = stored(project)
    assert 5 <= len(before) < count
    result = certiflow(project, environment, *arguments, "--json", "o.json")
    assert result.returncode == 0, result.stderr
    after = stored(project)
    assert len(after) == count
    assert {key: after[key] for key in before} == before
    found = json.loads((project / "o.json").read_text())
    assert sum(row["stored"] for row in found) == len(before)
    assert [row["verdict"] for row in found] == ["sat"] * count


def stored(project: Path) -> dict[tuple[str, str, str], tuple[float, str]]:
    """Seconds and creation time by network, property and engine."""
    path = project / "verdicts.db"
    if not path.exists():
        return {}
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            columns = "network, property, engine, seconds, created"
            found = connection.execute(f"SELECT {columns} FROM verdicts")
            return {tuple(row[:3]): (row[3], row[4]) for row in found}
    except sqlite3.OperationalError:  # being made
        return {}


def test_files_need_no_tensorflow_mlflow_or_prefect() -> None:
    code = (
        "import sys; "
        "import flows.command.cli, flows.actions.verify_command, flows.actions.reproduce_command; "
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'prefect'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout == "[]\n"


def test_model_in_mlflow(
    project: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    uri = f"sqlite:///{project / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("e", artifact_location=(project / "artifacts").as_uri())
    run = client.create_run(experiment)
    client.log_artifact(run.info.run_id, str(project / "model.onnx"), "model/data")
    client.create_registered_model("distance")
    source = f"{run.info.artifact_uri}/model"
    client.create_model_version("distance", source=source, run_id=run.info.run_id)
    client.set_registered_model_alias("distance", "best", "1")
    client.log_artifact(run.info.run_id, str(project / "sat.vnnlib"), "other")
    for model in ("models:/distance/1", "models:/distance@best", f"runs:/{run.info.run_id}/model"):
        result = certiflow(
            project, environment, "verify", "--model", model, "--property", "unsat.vnnlib"
        )
        assert (result.returncode, result.stdout) == (0, "unsat\n"), result.stderr
    result = certiflow(
        project,
        environment,
        *("verify", "--model", f"runs:/{run.info.run_id}/other", "--property", "unsat.vnnlib"),
    )
    assert result.returncode == 1
    assert "expected one .keras or .onnx file, found none" in result.stderr.splitlines()[-1]
