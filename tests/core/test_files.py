"""Files named by a user: what is replaced, what is written through, and what stays as it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tasks.core.errors import CertiflowError
from tasks.core.files import check_writable, output_file, written_atomically
from tests.devices import device, is_device


def write(path: Path, text: str = "new") -> None:
    with output_file(path) as temporary:
        temporary.write_text(text)


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    path.chmod(0o600)
    with pytest.raises(FileNotFoundError), written_atomically(path) as temporary:
        temporary.with_name("nowhere").rename(temporary)
    assert path.read_text() == "old"
    write(path)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == {"out.json"}


@pytest.mark.parametrize("exists", [True, False])
def test_symbolic_link_stays_and_its_target_is_written(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "sub").mkdir()
    target = tmp_path / "sub/target"
    if exists:
        target.write_text("old")
    (tmp_path / "between").symlink_to("sub/target")
    link = tmp_path / "out.json"
    link.symlink_to("between")
    check_writable(link)
    assert target.exists() == exists
    write(link)
    assert (link.is_symlink(), target.is_symlink()) == (True, False)
    assert target.read_text() == "new"
    assert names(tmp_path / "sub") == {"target"}


@pytest.mark.parametrize("linked", [True, False])
def test_device_stays(tmp_path: Path, linked: bool) -> None:
    path = node = device(tmp_path, "null")
    if linked:
        path = tmp_path / "out.json"
        path.symlink_to(node)
    check_writable(path)
    write(path)
    assert is_device(node)
    assert path.read_text() == ""


def test_full_device_is_an_error_and_stays(tmp_path: Path) -> None:
    node = device(tmp_path, "full")
    check_writable(node)
    with pytest.raises(CertiflowError, match=r"full: No space left on device: choose another"):
        write(node)
    assert is_device(node)


def test_pipe_is_written_through_and_not_opened_by_the_check(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable(pipe)  # opening it would wait for a reader
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    write(pipe, "new" * 100_000)
    reader.join(10)
    assert found == ["new" * 100_000]
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
def test_descriptor_is_written_from_where_it_stands(tmp_path: Path, name: str) -> None:
    with (tmp_path / "out").open("wb", buffering=0) as stream:
        stream.write(b"before, ")
        path = Path(name.format(stream.fileno()))
        if name == "link":
            path = tmp_path / name
            path.symlink_to(f"/dev/fd/{stream.fileno()}")
        check_writable(path)
        write(path, "new, ")
        stream.write(b"after")
    assert (tmp_path / "out").read_text() == "before, new, after"


def test_standard_output_in_a_file_keeps_what_is_printed(tmp_path: Path) -> None:
    program = """if True:
        from pathlib import Path
        from tasks.core.files import check_writable, output_file
        print("before", flush=True)
        check_writable(Path("/dev/stdout"))
        with output_file(Path("/dev/stdout")) as temporary:
            temporary.write_text("new\\n")
        print("after")
    """
    with (tmp_path / "out").open("wb") as stream:
        subprocess.run([sys.executable, "-c", program], stdout=stream, check=True)
    assert (tmp_path / "out").read_text() == "before\nnew\nafter\n"


def test_check_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    check_writable(path)
    assert names(tmp_path) == set()
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (".", errno.EISDIR),
        ("nowhere/out.json", errno.ENOENT),
        ("file/out.json", errno.ENOTDIR),
        ("loop", errno.ELOOP),
        ("/dev/fd/987", errno.ENOENT),
    ],
)
def test_check_says_what_cannot_be_written(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=os.strerror(number)):
        check_writable(tmp_path / name)
    assert names(tmp_path) == {"file", "loop"}
