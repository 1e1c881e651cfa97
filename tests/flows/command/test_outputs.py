"""Where results go: devices, pipes and links as files of options, and a full standard output."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.command import CERTIFLOW, SECONDS, certiflow, clean_environment, error_of
from tests.devices import device, is_device
from tests.property_files import saved_distance, saved_property

ONE = ["verify", "--model", "model.onnx", "--property", "sat.vnnlib"]
MANY = ["verify", "--csv", "instances.csv", "--results"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return clean_environment(tmp_path_factory.mktemp("prefect"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    saved_distance(tmp_path)
    saved_property(tmp_path / "sat.vnnlib", "(>= Y_0 0.9)")
    (tmp_path / "instances.csv").write_text("model.onnx,sat.vnnlib,20\n")
    return tmp_path


def shell(
    project: Path, environment: dict[str, str], line: str
) -> subprocess.CompletedProcess[str]:
    """A line of bash in which $C is the command."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=project,
        env=environment | {"C": " ".join(CERTIFLOW)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("options", [[*ONE, "--json"], MANY, ["compare", "--csv"]])
def test_device_stays_a_device(
    project: Path, environment: dict[str, str], options: list[str]
) -> None:
    node = device(project, "null")
    result = certiflow(project, environment, *options, "null")
    assert "Traceback" not in result.stderr
    assert (result.returncode == 0) == (options[0] == "verify")  # there are no versions to compare
    assert is_device(node)


@pytest.mark.parametrize("options", [[*ONE, "--json"], MANY])
def test_full_device_is_one_line(
    project: Path, environment: dict[str, str], options: list[str]
) -> None:
    node = device(project, "full")
    result = certiflow(project, environment, *options, "full")
    assert error_of(result) == "error: full: No space left on device: choose another file"
    assert is_device(node)


def test_link_stays_and_its_target_is_written(project: Path, environment: dict[str, str]) -> None:
    (project / "sub").mkdir()
    (project / "sub/target").write_text("old")
    (project / "out").symlink_to("sub/target")
    assert certiflow(project, environment, *ONE, "--json", "out").returncode == 0
    assert (project / "out").is_symlink()
    assert json.loads((project / "sub/target").read_text())["verdict"] == "sat"


def test_pipes_get_the_result(project: Path, environment: dict[str, str]) -> None:
    os.mkfifo(project / "pipe")
    one = " ".join(ONE)
    for line in (
        f"cat pipe & $C {one} --json pipe >/dev/null; wait",
        f"$C {one} --json >(cat) | cat",
        f"$C {one} --json /dev/stdout | cat",
    ):
        result = shell(project, environment, line)
        assert result.returncode == 0, result.stderr
        assert '"verdict": "sat"' in result.stdout
    assert (project / "pipe").is_fifo()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [ONE, ["compare", "--help"], ["--help"]])
def test_full_standard_output_is_one_line(
    project: Path, environment: dict[str, str], arguments: list[str], unbuffered: str
) -> None:
    with device(project, "full").open("wb") as full:
        result = subprocess.run(
            [*CERTIFLOW, *arguments],
            cwd=project,
            env=environment | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    said = "error: standard output cannot be written (No space left on device): send it elsewhere"
    assert error_of(result) == said
    assert result.stderr.splitlines()[-1] == said


@pytest.mark.parametrize("redirection", ["| head -c 0", ">&-"])
def test_standard_output_that_nobody_reads_is_no_traceback(
    project: Path, environment: dict[str, str], redirection: str
) -> None:
    held_back = environment | {"PYTHONUNBUFFERED": ""}
    result = shell(project, held_back, f"$C {' '.join(ONE)} {redirection}")
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
