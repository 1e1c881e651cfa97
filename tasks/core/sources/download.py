"""Downloads of files into a cache: checked, resumable, safe for parallel runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from filelock import FileLock

from tasks.core.data.pinned_files import CheckedFile, RemoteFile
from tasks.core.errors import CertiflowError
from tasks.core.sources.catalogue import SOURCES

MIRROR_VARIABLE = "CERTIFLOW_DATASET_MIRROR"
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
LOCK_SECONDS = 600.0

Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, bytes in all if known


class DatasetUnavailableError(CertiflowError):
    """No source gave a file. `transient` when trying again may help."""

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class _SourceError(Exception):
    def __init__(self, reason: str, *, transient: bool) -> None:
        super().__init__(reason)
        self.transient = transient


def fetch(
    name: str,
    cache: Path,
    *,
    on_progress: Progress = lambda file, done, total: None,
    on_warning: Callable[[str], None] = lambda text: None,
) -> None:
    """Brings the files of a dataset into `cache / name`; files that are there and whole stay.

    Sources in order: the mirror in `CERTIFLOW_DATASET_MIRROR`, then the public addresses. A file
    whose content is wrong is moved aside to `<file>.corrupt` and never used. One process downloads
    at a time; an interrupted download goes on where it was.

    Raises:
        DatasetUnavailableError: names every source tried and why it failed.
        CertiflowError: the cache cannot be written.
    """
    files = SOURCES[name].files if name in SOURCES else ()
    if not files:  # they come with scikit-learn, or are the user's own
        return
    folder = cache / name
    with _locked(folder, "choose another folder with data.cache"):
        for remote in files:
            remedy = f"that holds {remote.mirror_path}, or choose another data.dataset"
            _fetch_file(remote.file, folder, _addresses(remote), remedy, on_progress, on_warning)


def fetch_file(file: CheckedFile, folder: Path, addresses: Sequence[str], *, remedy: str) -> Path:
    """The file in `folder`, brought there from the first address that has it, as `fetch` does.

    `remedy` says what a folder named by the mirror variable must be like. Raises the same errors.
    """
    with _locked(folder, "run the command in another folder"):
        _fetch_file(file, folder, addresses, remedy)
    return folder / file.name


def _addresses(remote: RemoteFile) -> tuple[str, ...]:
    mirror = mirror_url()
    first = (f"{mirror}/{remote.mirror_path}",) if mirror else ()
    return first + remote.addresses


def mirror_url() -> str | None:
    """What the mirror variable holds; raises `CertiflowError` when that is not a URL."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip().rstrip("/")
    if mirror and not mirror.startswith(("file://", "http://", "https://")):
        raise CertiflowError(
            f"{MIRROR_VARIABLE} is '{mirror}': expected a URL that starts with file:// or http://"
        )
    return mirror or None


@contextmanager
def _locked(folder: Path, remedy: str) -> Iterator[None]:
    """The folder is made and this process alone writes to it; says what the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
            yield
    except OSError as error:
        raise CertiflowError(
            f"{folder}: {error.strerror or error}: make it writable, free some space, or {remedy}"
        ) from error


def _fetch_file(
    file: CheckedFile,
    folder: Path,
    addresses: Sequence[str],
    remedy: str,
    on_progress: Progress = lambda file, done, total: None,
    on_warning: Callable[[str], None] = lambda text: None,
) -> None:
    target, failures = folder / file.name, []
    if target.exists():
        try:
            file.read(target)
            return
        except CertiflowError as error:
            aside = _set_aside(target)
            on_warning(f"{error}; moved to {aside.name}, fetching it again")
            failures.append(f"cache: {error}")
    transient = False
    for address in addresses:
        # Sources that name it otherwise pack it otherwise: one's part is not the other's beginning.
        source, _, last = address.partition("?")[0].rpartition("/")
        part = folder / f".{last}.part"
        try:
            _fetch_from(address, part, file.name, on_progress)
            file.read(part)
        except _SourceError as error:
            failures.append(f"{source}: {error}")
            transient = transient or error.transient
        except CertiflowError as error:
            aside = _set_aside(part)
            failures.append(f"{source}: {str(error).replace(str(part), str(aside))}")
        else:
            part.replace(target)
            return
    raise DatasetUnavailableError(
        f"{folder.name} cannot be had: no source gave {file.name} ("
        + "; ".join(failures)
        + f"). Set {MIRROR_VARIABLE} to a file:// or http:// folder {remedy}",
        transient=transient,
    )


def _set_aside(path: Path) -> Path:
    aside = path.with_name(path.name.lstrip(".").removesuffix(".part") + ".corrupt")
    path.replace(aside)
    return aside


def _fetch_from(url: str, part: Path, name: str, on_progress: Progress) -> None:
    if url.startswith("file://"):
        origin = Path(httpx.URL(url).path)
        if not origin.is_file():
            raise _SourceError("no such file", transient=False)
        part.write_bytes(origin.read_bytes())
        on_progress(name, part.stat().st_size, part.stat().st_size)
        return
    try:
        _fetch_over_http(url, part, name, on_progress)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        raise _SourceError(f"HTTP {code}", transient=code >= 500 or code == 429) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise _SourceError(reason, transient=True) from error


def _fetch_over_http(url: str, part: Path, name: str, on_progress: Progress) -> None:
    """Streams to `part`, going on from its end when the server can."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    with httpx.stream(
        "GET", url, headers=headers, timeout=timeout, follow_redirects=True
    ) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the part is complete already
        answer.raise_for_status()
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            done = 0
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if done else "wb") as stream:
            for chunk in answer.iter_raw():  # with a chunk size an unfinished chunk would be lost
                stream.write(chunk)
                done += len(chunk)
                on_progress(name, done, total)
    if total is not None and done < total:
        raise httpx.ReadError(f"connection closed after {done} of {total} bytes")
