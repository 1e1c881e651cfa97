"""Which Prefect server of this machine a command believes to be its user's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.processes import prefect_server, running_server
from tests.command import ROOT


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


@pytest.fixture
def port() -> Iterator[int]:
    """This process listens there, as a server would."""
    with socket.socket() as listener:
        listener.bind((running_server.HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_server_is_found_while_it_listens(home: Path, port: int) -> None:
    assert running_server.find() is None
    running_server.leave_note(port)
    assert running_server.find() == f"http://127.0.0.1:{port}/api"
    assert prefect_server.at_hand()
    assert [path.name for path in home.iterdir()] == [running_server.NOTE]
    running_server.remove_note()
    assert running_server.find() is None
    assert not prefect_server.at_hand()


def test_a_server_that_is_gone_or_another_is_not_believed(home: Path, port: int) -> None:
    note = home / running_server.NOTE
    for said in (
        {"pid": os.getppid(), "port": port},  # listens at no such port
        {"pid": 2**22 + 1, "port": port},
        {"pid": os.getpid(), "port": 1},
        {"pid": "x", "port": port},
        [],
    ):
        note.write_text(json.dumps(said))
        assert running_server.find() is None
    note.write_text("no JSON")
    assert running_server.find() is None


def test_a_note_that_others_could_have_written_is_not_believed(home: Path, port: int) -> None:
    running_server.leave_note(port)
    note = home / running_server.NOTE
    note.chmod(0o620)
    assert running_server.find() is None
    note.chmod(0o600)
    home.chmod(0o702)
    assert running_server.find() is None
    home.chmod(0o700)
    assert running_server.find() is not None
    note.rename(home / "elsewhere")
    note.symlink_to(home / "elsewhere")
    assert running_server.find() is None


def test_another_process_takes_back_no_note_of_ours(home: Path, port: int) -> None:
    note = home / running_server.NOTE
    note.write_text(json.dumps({"pid": os.getppid(), "port": port}))
    running_server.remove_note()
    assert note.exists()


def test_a_listener_that_is_no_prefect_server_is_not_used(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_server.leave_note(port)
    monkeypatch.setattr(prefect_server, "PROBE_SECONDS", 0.2)
    assert not prefect_server._answers(f"http://127.0.0.1:{port}/api")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("prefect.toml", '[api]\nurl = "http://127.0.0.1:9/api"\n'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://127.0.0.1:9/api"\n'),
    ],
)
def test_an_api_configured_in_a_file_is_seen(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    code = "from flows.processes import prefect_server; print(prefect_server.configured_url())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "http://127.0.0.1:9/api"
