"""Files that are either whole or absent, and references to them by content."""

from __future__ import annotations

import atexit
import codecs
import errno
import gzip
import hashlib
import io
import os
import shutil
import stat
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.core.errors import CertiflowError

MAX_LINKS = 40  # as many as Linux follows
GZIP_MAGIC = b"\x1f\x8b"
MOST_UNPACKED = 2**31  # bytes of a gzipped file: some kilobytes can hold terabytes


class ArtifactRef(BaseModel):
    """A file by its path and the SHA-256 of its content; what tasks hand to each other."""

    model_config = ConfigDict(frozen=True)

    path: Path
    sha256: str

    @classmethod
    def to(cls, path: Path) -> ArtifactRef:
        """A reference to the file as it is now."""
        return cls(path=path, sha256=sha256_of(path.read_bytes()))

    def verified_path(self) -> Path:
        """The path; raises `CertiflowError` when the content is not what was referred to."""
        found = sha256_of(self.path.read_bytes()) if self.path.is_file() else "no file"
        if found != self.sha256:
            raise CertiflowError(
                f"{self.path}: expected SHA-256 {self.sha256}, found {found}; run the flow again"
            )
        return self.path


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_packed(path: Path) -> bool:
    """Whether the name says that it is gzipped."""
    return path.suffix.lower() == ".gz"


def unpacked(path: Path, content: bytes) -> bytes:
    """What a gzipped file of this content holds.

    Raises:
        CertiflowError: it is no gzip, or damaged, or holds more than `MOST_UNPACKED` bytes.
    """
    found = decompressed(path, content, MOST_UNPACKED, "a gzipped file")
    if len(found) > MOST_UNPACKED:
        raise CertiflowError(f"{path}: holds more than {MOST_UNPACKED:,} bytes; unpack it first")
    return found


def decompressed(path: Path, packed: bytes, size: int, expected: str) -> bytes:
    """At most `size` bytes of a gzipped file, and one more where there are more.

    Raises:
        CertiflowError: it is no gzip, or not whole; `expected` says what it should be.
    """
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            return stream.read(size + 1)  # never more: an archive may be a bomb
    except (OSError, EOFError, zlib.error) as error:
        raise CertiflowError(
            f"{path}: truncated or not gzip ({error}); expected {expected}"
        ) from error


def plain(path: Path) -> Path:
    """The file, of one that ends with .gz a copy of what it holds, until this process ends.

    Raises:
        CertiflowError: there is no such file, it cannot be read, is no gzip, or is damaged.
    """
    if not is_packed(path):
        return path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CertiflowError(f"{path}: {error.strerror}; give the path of a file") from error
    copy = temporary_folder("certiflow-unpacked-") / path.stem
    copy.write_bytes(unpacked(path, content))
    return copy


def read_text(path: Path) -> str:
    """A file of numbers and comments, in any encoding that has ASCII.

    What is no UTF-8 is read byte by byte: names and numbers are ASCII, comments may be anything.

    Raises:
        CertiflowError: it is no text: binary, or damaged.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise CertiflowError(f"{path}: not a text file (line {line}); give one")
    return text


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A temporary path with `path`'s suffix, whose file becomes `path` when the block succeeds.

    A symbolic link stays, and what it points to is written. Only a regular file is replaced: a
    device, a pipe or a descriptor (`/dev/stdout`, `/dev/fd/3`) gets the bytes.
    """
    if _is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / f"content{path.suffix}"
            yield temporary
            _send(temporary, path)
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with _beside(target, path.suffix) as temporary:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """`written_atomically` for a file that the user named.

    Raises:
        CertiflowError: it cannot be written: the disk is full, a pipe's reader has gone.
    """
    try:
        with written_atomically(path) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or str(error)
        raise CertiflowError(f"{path}: {reason}: choose another file") from error


def check_writable(path: Path) -> None:
    """Does all that `output_file` does but the writing, and leaves everything as it was.

    Nothing is opened that is not a regular file: a pipe would wait for its reader.

    Raises:
        OSError: `path` cannot be written.
    """
    if _is_stream(path):
        path.stat()  # a descriptor that is not open
        if not os.access(path, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    with _beside(target, path.suffix) as temporary:
        temporary.touch()


@contextmanager
def _beside(target: Path, suffix: str) -> Iterator[Path]:
    """A path in `target`'s folder, where nothing is left behind."""
    temporary = target.with_name(f".{uuid.uuid4().hex}{suffix}")
    try:
        yield temporary
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()


def _is_stream(path: Path) -> bool:
    """Whether `path` is there, and is a device, a pipe, a socket or a descriptor."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return _descriptor(path) is not None
    regular = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return not regular or _descriptor(path) is not None


def _send(content: Path, stream: Path) -> None:
    """Copies a file's bytes into a stream; into a descriptor from where it stands."""
    descriptor = _descriptor(stream)
    # Opened by its name, a file that is standard output would be overwritten from its start.
    opened: Path | int = stream if descriptor is None else os.dup(descriptor)
    with content.open("rb") as source, open(opened, "wb") as sink:
        shutil.copyfileobj(source, sink)


def _descriptor(path: Path) -> int | None:
    """The number of this process's descriptor that `path` names, through links or directly."""
    for _ in range(MAX_LINKS):
        folder = Path(os.path.realpath(path.parent))
        if folder == Path(f"/proc/{os.getpid()}/fd") and path.name.isdigit():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = folder / path.readlink()
    return None


def temporary_folder(prefix: str) -> Path:
    """A new folder that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
