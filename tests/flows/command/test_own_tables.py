"""A table of one's own at the command: a schema is proposed, and looked at before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.settings import DataSettings
from tests.command import invoked, refusal, with_settings

ROWS = [f"{20 + row % 40},{row % 3},{'good' if row % 4 else 'bad'}" for row in range(80)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/people.csv").write_text("\n".join(["age,children,status", *ROWS, ""]))
    monkeypatch.chdir(with_settings(tmp_path))
    return tmp_path


def run(*overrides: str) -> list[str]:
    sets = [part for override in overrides for part in ("--set", override)]
    return ["run", "--conf", "conf/smoke.yaml", *sets]


def test_schema_prints_or_writes_a_proposal(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["schema", "tables/people.csv", "--target", "status"]
    printed = invoked(monkeypatch, *asked)
    assert printed.exit_code == 0, printed.exception
    assert yaml.safe_load(printed.stdout)["source"] == "tables/people.csv"
    output = project / "tables/people.yaml"
    written = invoked(monkeypatch, *asked, "--output", str(output))
    assert "data.dataset=" in written.stdout
    schema = yaml.safe_load(output.read_text())
    assert schema["source"] == "people.csv"
    assert schema["classes"] == ["bad", "good"]
    said = refusal(monkeypatch, *asked, "--output", str(output))
    assert "is there: a schema is edited" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tables/none.csv", "--target", "status"], "none.csv: No such file"),
        (["tables/people.csv", "--target", "state"], "no column 'state'"),
        (["tables/people.csv", "--target", "status", "--output", "x.txt"], "expected a .yaml"),
        (["tables/people.csv", "--target", "status", "--features", "no.csv"], "no.csv: No such"),
    ],
)
def test_schema_refuses(
    arguments: list[str], said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in refusal(monkeypatch, "schema", *arguments)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "state"}, "people.csv: has no column 'state'"),
        ({"features": [{"name": "age", "upper": 99, "mutable": False}]}, "no feature can change"),
        ({"features": [{"name": "age", "upper": 50}]}, "age is '51': expected 0 to 50"),
        ({"relations": ["age > height"]}, "there is no feature 'height'"),
    ],
)
def test_a_run_is_refused_before_it_starts(
    changes: dict[str, object], said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = {
        "source": "people.csv",
        "target": "status",
        "classes": ["good", "bad"],
        "features": [{"name": "age", "kind": "integer", "upper": 99}],
    }
    (project / "tables/people.yaml").write_text(yaml.safe_dump(schema | changes))
    told = refusal(monkeypatch, *run("data.dataset=tables/people.yaml"))
    assert said in told


def test_samples_are_held_against_the_tables_test_rows(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--target", "status", "--output", "tables/people.yaml"]
    invoked(monkeypatch, "schema", "tables/people.csv", *asked)
    told = refusal(monkeypatch, *run("data.dataset=tables/people.yaml", "verification.samples=17"))
    assert "verification.samples is 17: expected at most 16, the size of people's test" in told
    told = refusal(monkeypatch, *run("data.dataset=credit", "verification.samples=6001"))
    assert "expected at most 6000" in told


def test_the_positive_class_is_one_of_the_datas(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--target", "status", "--output", "tables/people.yaml"]
    invoked(monkeypatch, "schema", "tables/people.csv", *asked)
    for dataset, classes in [("tables/people.yaml", "bad, good"), ("credit", "paid, default")]:
        told = refusal(monkeypatch, *run(f"data.dataset={dataset}", "data.positive=ugly"))
        assert f"data.positive is 'ugly': expected one of {classes}" in told
    settings = DataSettings(dataset="tables/people.yaml", positive="good")
    assert settings.load().positive == 1
    assert DataSettings(dataset="tables/people.yaml").load().positive is None


def test_what_is_neither_a_name_nor_a_file_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refusal(monkeypatch, *run("data.dataset=people.csv"))
    assert "the .yaml schema of a table (`certiflow schema DATA.csv` proposes one)" in told
