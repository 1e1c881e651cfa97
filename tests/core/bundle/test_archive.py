"""Archives: what was written comes back, and no byte of it can be another."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tasks.core.bundle import archive
from tasks.core.errors import CertiflowError

FILES = {
    "a.json": b'{"a": 1}',
    "tables/b.csv": b"x,y\n1,2\n",
    "empty": b"",
    "z/y/x.npz": b"\x00\xff",
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "e.zip"
    archive.write(path, FILES)
    return path


def test_files_come_back_and_bytes_depend_on_nothing_else(written: Path) -> None:
    assert archive.read(written) == FILES
    assert archive.packed(dict(reversed(FILES.items()))) == written.read_bytes()
    assert not [path for path in written.parent.iterdir() if path != written]


def test_other_programs_read_it(written: Path) -> None:
    with zipfile.ZipFile(written) as opened:
        assert opened.testzip() is None
        assert opened.read("tables/b.csv") == FILES["tables/b.csv"]


def test_every_changed_byte_is_found(written: Path, tmp_path: Path) -> None:
    content, changed = written.read_bytes(), tmp_path / "changed.zip"
    generator = np.random.default_rng(0)
    for place in range(len(content)):
        flip = int(generator.integers(1, 256))
        changed.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        with pytest.raises(CertiflowError):
            archive.read(changed)


@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content])
def test_a_damaged_file_is_named(name: str, written: Path) -> None:
    content = bytearray(written.read_bytes())
    content[bytes(content).index(FILES[name])] ^= 1
    written.write_bytes(content)
    with pytest.raises(CertiflowError, match=f"{name} is damaged"):
        archive.read(written)


def test_what_was_put_between_is_found_and_named(written: Path) -> None:
    content = written.read_bytes()
    for wrong in (content + b"\0", b"\0" + content, content[:-1], content[:40]):
        written.write_bytes(wrong)
        with pytest.raises(CertiflowError):
            archive.read(written)
    place = content.index(b"a.json")
    written.write_bytes(content[: place - 20] + b"\x01" + content[place - 19 :])
    with pytest.raises(CertiflowError, match=r"in a\.json, is none"):
        archive.read(written)


def zipped(
    *entries: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_STORED
) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as opened:
        warnings.simplefilter("ignore")  # of names that stand twice
        for entry, content in entries:
            opened.writestr(entry, content)
    return buffer.getvalue()


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("link", archive.TIME)
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped(("../evil", b"")), r"\.\./evil"),
        (zipped(("/etc/passwd", b"")), "/etc/passwd"),
        (zipped(("a/../../b", b"")), "a/../../b"),
        (zipped(("a\\b", b"")), "holds a file"),
        (zipped((".hidden", b"")), "hidden"),
        (zipped(("folder/", b"")), "folder/"),
        (zipped((link(), b"/etc/passwd")), "no regular file"),
        (zipped(("bomb", b"\0" * 10**6), method=zipfile.ZIP_DEFLATED), "compressed"),
        (zipped(("a", b"1"), ("a", b"2")), "compressed|twice"),
        (b"PK", "no ZIP file"),
        (b"", "expected an archive"),
    ],
)
def test_hostile_archives_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "e.zip"
    path.write_bytes(content)
    with pytest.raises(CertiflowError, match=said):
        archive.read(path)


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "", "ä", "a b", "x" * 201])
def test_no_such_name_is_written(name: str) -> None:
    with pytest.raises(CertiflowError, match="no name of a file"):
        archive.packed({name: b""})


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match="give the path"):
        archive.read(tmp_path / "none.zip")
