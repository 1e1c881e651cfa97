"""The archive: a ZIP file that has one form for its content, so that a changed byte is seen.

Nothing is compressed: any library gives the same bytes, and no archive unpacks to more than it is.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from tasks.core.errors import CertiflowError, first_line
from tasks.core.files import output_file

MOST_BYTES = 2**31 - 1  # of an archive: beyond, ZIP files have another form
MOST_FILES = 2**16 - 2  # likewise
TIME = (1980, 1, 1, 0, 0, 0)  # ZIP's first moment
MODE = 0o100644 << 16  # a regular file
PART = r"[A-Za-z0-9_+=-][A-Za-z0-9._+=-]*"  # of a name: neither hidden, nor `..`, nor empty
NAME = re.compile(rf"{PART}(?:/{PART})*")
LONGEST = 200  # characters of a name
UNREADABLE = (
    zipfile.BadZipFile,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    UnicodeDecodeError,
    ValueError,
    struct.error,
    zlib.error,
)
REMEDY = "ask for the archive again, or for a new one by `certiflow evidence`"


def packed(files: Mapping[str, bytes]) -> bytes:
    """The archive of the files, by their names in it; the same for the same files.

    Raises:
        CertiflowError: a name that no archive has, too many files, or too much in them.
    """
    total = sum(len(content) + 3 * LONGEST for content in files.values())
    if len(files) > MOST_FILES or total > MOST_BYTES:
        raise CertiflowError(
            f"an archive of {len(files):,} files and {total:,} bytes: expected at most "
            f"{MOST_FILES:,} and {MOST_BYTES:,}; ask for fewer certificates"
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name in sorted(files):
            if not _is_name(name):
                raise CertiflowError(
                    f"{name}: no name of a file in an archive: expected letters, digits, . _ + = -"
                )
            entry = zipfile.ZipInfo(name, TIME)
            entry.create_system, entry.external_attr = 3, MODE
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes the archive; it is either whole or not there.

    Raises:
        CertiflowError: as `packed`; the path cannot be written.
    """
    content = packed(files)
    with output_file(path) as temporary:
        temporary.write_bytes(content)


def read(path: Path) -> dict[str, bytes]:
    """The files of an archive that `write` could have written, by name.

    Raises:
        CertiflowError: it cannot be read, is too great, or any byte of it is another than `write`
            writes for what it holds; names the file that the byte belongs to.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise CertiflowError(f"{path}: {error.strerror}; give the path of an archive") from error
    if not content:
        raise CertiflowError(f"{path}: {size:,} bytes: expected an archive of 1 to {MOST_BYTES:,}")
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except UNREADABLE as error:
        raise CertiflowError(
            f"{path}: its directory is damaged, or it is no ZIP file ({first_line(error)}): "
            f"{REMEDY}"
        ) from error
    with archive:
        files = _read(path, archive)
        starts = {entry.filename: entry.header_offset for entry in archive.infolist()}
    again = packed(files)
    if again != content:
        place = _first_difference(again, content)
        owners = [name for name, start in starts.items() if start <= place < archive.start_dir]
        owner = max(owners, key=starts.__getitem__, default="its directory")
        raise CertiflowError(
            f"{path}: byte {place:,}, in {owner}, is none that certiflow writes: {REMEDY}"
        )
    return files


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes the files of an archive below a folder; their names lead nowhere else."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _read(path: Path, archive: zipfile.ZipFile) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for entry in archive.infolist():
        name = entry.filename
        if not _is_name(name):
            raise CertiflowError(f"{path}: holds a file of the name {name!r}: {REMEDY}")
        if name in files:
            raise CertiflowError(f"{path}: holds {name} twice: {REMEDY}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.external_attr != MODE:
            raise CertiflowError(
                f"{path}: {name} is compressed, or no regular file; certiflow writes neither: "
                f"{REMEDY}"
            )
        try:
            files[name] = archive.read(entry)
        except UNREADABLE as error:
            raise CertiflowError(
                f"{path}: {name} is damaged ({first_line(error)}): {REMEDY}"
            ) from error
    return files


def _is_name(name: str) -> bool:
    return len(name) <= LONGEST and NAME.fullmatch(name) is not None


def _first_difference(one: bytes, other: bytes) -> int:
    """The first place at which they differ, or at which the shorter ends."""
    common = min(len(one), len(other))
    start = 0
    while start < common and one[start : start + 65536] == other[start : start + 65536]:
        start += 65536
    pairs = zip(one[start:common], other[start:common], strict=True)
    return next((start + at for at, (a, b) in enumerate(pairs) if a != b), common)
