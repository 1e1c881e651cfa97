"""A verdict that was put is never lost, and a damaged one is never believed."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import CertiflowError
from tasks.core.execution import verdict_store
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.verdicts import DecidedBy, Verdict

ROOT = Path(__file__).parents[3]
KEY = VerdictKey("n" * 64, "p" * 64, "certiflow 1, epsilon tolerance 1e-6")
ROBUST = StoredVerdict(Verdict.ROBUST, DecidedBy.CROWN, 0.25)
FULL = StoredVerdict(
    verdict=Verdict.FALSIFIED,
    decided_by=DecidedBy.BRANCH_AND_BOUND,
    seconds=0.1 + 0.2,
    margin=-1e-300,
    reason="near_boundary, \"π\" and 'quotes'",
    target=7,
    stage_seconds={"crown": 1 / 3, "branch_and_bound": 2.0**-40},
    points=np.random.default_rng(0).normal(size=(3, 5)),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "verdicts.db"


def assert_same(found: StoredVerdict | None, expected: StoredVerdict) -> None:
    assert found is not None
    for field in fields(StoredVerdict):
        if field.name != "points":
            assert getattr(found, field.name) == getattr(expected, field.name)
    assert isinstance(found.verdict, Verdict)
    assert isinstance(found.decided_by, DecidedBy)
    assert isinstance(found.seconds, float)
    if expected.points is None:
        assert found.points is None
    else:
        assert found.points is not None
        assert found.points.dtype == np.float64
        np.testing.assert_array_equal(found.points, expected.points, strict=True)


@pytest.mark.parametrize(
    "verdict",
    [
        FULL,
        ROBUST,
        replace(FULL, points=np.zeros((0, 4)), margin=0.0, target=0),
        replace(FULL, points=np.asfortranarray(np.arange(6.0).reshape(2, 3))[:, ::2]),
        replace(FULL, margin=-np.inf, points=np.array([np.nextafter(0, 1), -0.0, 1e308])),
        replace(ROBUST, margin=np.float64(0.1)),
    ],
    ids=["full", "defaults", "empty points", "strided points", "extreme numbers", "numpy float"],
)
def test_round_trip_after_reopening(path: Path, verdict: StoredVerdict) -> None:
    with VerdictStore(path) as store:
        assert store.get(KEY) is None
        store.put(KEY, verdict)
        assert_same(store.get(KEY), verdict)
    with VerdictStore(path) as store:
        assert_same(store.get(KEY), verdict)


def test_same_key_again_replaces(path: Path) -> None:
    with VerdictStore(path) as store:
        store.put(KEY, FULL)
        store.put(KEY, ROBUST)
        assert_same(store.get(KEY), ROBUST)


@pytest.mark.parametrize("part", ["network", "property", "engine"])
def test_each_part_of_the_key_tells_entries_apart(path: Path, part: str) -> None:
    other = replace(KEY, **{part: "another"})
    with VerdictStore(path) as store:
        store.put(KEY, FULL)
        assert store.get(other) is None
        store.put(other, ROBUST)
        assert_same(store.get(KEY), FULL)
        assert_same(store.get(other), ROBUST)


PUTS = """
import resource
import sys
from pathlib import Path
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.verdicts import DecidedBy, Verdict
import numpy as np

path, writer, count, file_bytes = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
with VerdictStore(path) as store:
    for number in range(count):
        verdict = StoredVerdict(
            Verdict.FALSIFIED, DecidedBy.ATTACK, float(number), points=np.full(100, number)
        )
        store.put(VerdictKey(writer, str(number), "engine"), verdict)
        print(number, flush=True)
"""


def start_putting(
    path: Path, writer: str, count: int, *, file_bytes: int = resource.RLIM_INFINITY
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PUTS, str(path), writer, str(count), str(file_bytes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def assert_all_there(path: Path, writer: str, count: int) -> None:
    with VerdictStore(path) as store:
        for number in range(count):
            found = store.get(VerdictKey(writer, str(number), "engine"))
            assert found is not None
            assert (found.verdict, found.seconds) == (Verdict.FALSIFIED, number)
            assert found.points is not None
            assert (found.points == number).all()


@pytest.mark.parametrize("reported", [1, 37, 500])
def test_killed_process_loses_nothing_that_it_reported(path: Path, reported: int) -> None:
    with start_putting(path, "killed", 10**9) as child:
        assert child.stdout is not None
        for _ in range(reported):
            child.stdout.readline()
        child.kill()
        reported += len(child.stdout.read().splitlines())
    assert child.returncode == -9
    assert_all_there(path, "killed", reported)
    with VerdictStore(path) as store:  # what was begun and not committed left no trace
        store.put(KEY, ROBUST)
        assert_same(store.get(KEY), ROBUST)


def test_two_processes_writing_at_once_lose_nothing(path: Path) -> None:
    children = [start_putting(path, writer, 200) for writer in ("first", "second")]
    for child in children:
        child.communicate()
        assert child.returncode == 0
    for writer in ("first", "second"):
        assert_all_there(path, writer, 200)


def test_new_file_that_another_process_is_opening_is_waited_for(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        ending = threading.Timer(0.3, other.rollback)
        ending.start()
        with VerdictStore(path) as store:
            store.put(KEY, ROBUST)
            assert_same(store.get(KEY), ROBUST)
        ending.join()


def test_store_that_was_never_finished_is_finished(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:  # killed before the version was written
        connection.execute(f"CREATE TABLE verdicts ({verdict_store.COLUMNS})")
    with VerdictStore(path) as store:
        store.put(KEY, FULL)
        assert_same(store.get(KEY), FULL)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("verdict", "certainly robust"),
        ("verdict", ""),
        ("verdict", "ROBUST"),
        ("decided_by", "oracle"),
        ("record", ""),
        ("record", "{"),
        ("record", "{}"),
        ("record", "null"),
        ("record", '{"margin": "1", "reason": "", "target": null, "stage_seconds": {}}'),
        ("record", '{"margin": 1, "reason": "", "target": 1.5, "stage_seconds": {}}'),
        ("record", '{"margin": 1, "reason": "", "target": 1, "stage_seconds": {}, "more": 1}'),
        ("points", b""),
        ("points", b"PK\x03\x04 not an array"),
        ("points", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order'"),
    ],
)
def test_damaged_row_is_absent_and_can_be_replaced(
    path: Path, column: str, value: str | bytes
) -> None:
    with VerdictStore(path) as store:
        store.put(KEY, FULL)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute(f"UPDATE verdicts SET {column} = ?", [value])
        assert store.get(KEY) is None
        store.put(KEY, FULL)
        assert_same(store.get(KEY), FULL)


def test_text_that_is_not_utf8_is_a_damaged_row(path: Path) -> None:
    with VerdictStore(path) as store:
        store.put(KEY, FULL)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE verdicts SET verdict = CAST(x'ff' AS TEXT)")
        assert store.get(KEY) is None


def test_damaged_points_are_absent_or_the_shape_they_had(path: Path) -> None:
    with VerdictStore(path) as store:
        store.put(KEY, FULL)
        with closing(sqlite3.connect(path)) as other:
            (blob,) = other.execute("SELECT points FROM verdicts").fetchone()
            rng = np.random.default_rng(1)
            for end in [*range(0, len(blob), 7), len(blob) + 1]:
                damaged = bytearray(blob + b"\0")[:end]
                with other:
                    other.execute("UPDATE verdicts SET points = ?", [bytes(damaged)])
                assert store.get(KEY) is None
            for place in range(128):
                damaged = bytearray(blob)
                damaged[place] ^= rng.integers(1, 256)
                with other:
                    other.execute("UPDATE verdicts SET points = ?", [bytes(damaged)])
                found = store.get(KEY)
                assert found is None or (
                    found.points is not None and found.points.dtype == np.float64
                )


def test_no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("sample_index,label,epsilon\n" * 1000)
    with pytest.raises(CertiflowError, match=r"verdicts\.db: .*not a database.*move it away"):
        VerdictStore(path)
    assert path.read_text().startswith("sample_index")


def test_damaged_database(path: Path) -> None:
    with VerdictStore(path) as store:
        for number in range(200):
            store.put(replace(KEY, property=str(number)), FULL)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with (
        pytest.raises(CertiflowError, match=r"verdicts\.db: .*malformed.*move it away"),
        VerdictStore(path) as store,
    ):
        store.get(KEY)


def test_newer_schema(path: Path) -> None:
    with VerdictStore(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {verdict_store.SCHEMA_VERSION + 1}")
    with pytest.raises(CertiflowError, match=r"newer certiflow \(schema 2, .* update certiflow"):
        VerdictStore(path)


def test_another_programs_table(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE verdicts (judge TEXT)")
    with VerdictStore(path) as store, pytest.raises(CertiflowError, match="other tables"):
        store.get(KEY)


def test_path_below_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "v.db", tmp_path / "file" / "folder" / "v.db"):
        with pytest.raises(CertiflowError, match=r"v\.db: its folder cannot be made .*another"):
            VerdictStore(path)


def test_path_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match="name another path"):
        VerdictStore(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_write_permission(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    with pytest.raises(CertiflowError, match="writable folder"):
        VerdictStore(path)


def test_locked_by_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_store, "BUSY_SECONDS", 0.1)
    with VerdictStore(path) as store, closing(sqlite3.connect(path)) as other:
        store.put(KEY, ROBUST)
        other.execute("BEGIN IMMEDIATE")
        assert_same(store.get(KEY), ROBUST)  # readers never wait
        with pytest.raises(CertiflowError, match=r"database is locked.*another process"):
            store.put(KEY, FULL)
        other.rollback()
        store.put(KEY, FULL)
        assert_same(store.get(KEY), FULL)


def test_full_disk(path: Path) -> None:
    """A limit on the size of files stands for the disk's."""
    with start_putting(path, "full", 10**9, file_bytes=300_000) as child:
        stdout, stderr = child.communicate()
    assert child.returncode == 1
    last_line = stderr.decode().splitlines()[-1]
    assert last_line.startswith(f"tasks.core.errors.CertiflowError: {path}: ")
    assert "free space" in last_line
    assert_all_there(path, "full", len(stdout.splitlines()))
