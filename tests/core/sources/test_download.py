"""Downloads: content is what was pinned, files are whole or absent, sources are tried in order."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tasks.core.data.datasets import DataCard, Extent
from tasks.core.data.pinned_files import PinnedText
from tasks.core.errors import CertiflowError
from tasks.core.sources import catalogue, download
from tasks.core.sources.download import MIRROR_VARIABLE, DatasetUnavailableError, fetch
from tasks.core.sources.idx import IdxFile, IdxFiles
from tasks.core.sources.image_source import ImageSource, in_folders

SHAPES = {"a": (30, 4, 4), "b": (30,), "c": (10, 4, 4), "d": (10,)}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.tobytes()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small dataset `tiny`, which `SOURCES` knows while a test runs."""
    folder = tmp_path / "mirror" / "tiny"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    files = []
    for name, shape in SHAPES.items():
        content = idx_bytes(generator.integers(0, 10, size=shape).astype(np.uint8))
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        files.append(IdxFile(f"{name}.gz", shape, sha256=hashlib.sha256(content).hexdigest()))
    content = IdxFiles(*files)
    source = ImageSource(
        content,
        in_folders(content, "tiny", ()),
        Extent((4, 4), 10, 10),
        DataCard(),
        tuple("abcdefghij"),
    )
    monkeypatch.setitem(catalogue.SOURCES, "tiny", source)
    monkeypatch.setenv(MIRROR_VARIABLE, (tmp_path / "mirror").as_uri())
    return folder


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder with byte ranges; breaks off the first answer for `a.gz` half way."""

    broken = False
    ranges: list[str]

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, start = path.read_bytes(), 0
        if wanted := self.headers.get("Range"):
            self.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.path.endswith("a.gz") and not type(self).broken:
            type(self).broken = True
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def http_mirror(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    handler = type("OneTestsHandler", (Handler,), {"ranges": [], "broken": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=mirror.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(MIRROR_VARIABLE, f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


def test_mirror_fills_the_cache(mirror: Path, tmp_path: Path) -> None:
    fetch("tiny", tmp_path / "cache")
    loaded = catalogue.load("tiny", tmp_path / "cache")
    assert loaded.train_inputs.shape == (30, 4, 4)
    assert loaded.test_labels.dtype == np.int64
    assert 0 <= loaded.train_inputs.min() <= loaded.train_inputs.max() <= 1


def test_cache_needs_no_source(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch("tiny", tmp_path / "cache")
    monkeypatch.delenv(MIRROR_VARIABLE)
    fetch("tiny", tmp_path / "cache")
    assert catalogue.load("tiny", tmp_path / "cache").name == "tiny"


def test_recompressed_file_passes(mirror: Path, tmp_path: Path) -> None:
    content = gzip.decompress((mirror / "a.gz").read_bytes())
    (mirror / "a.gz").write_bytes(gzip.compress(content, compresslevel=1))
    fetch("tiny", tmp_path / "cache")
    assert catalogue.load("tiny", tmp_path / "cache").name == "tiny"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda packed: packed[: len(packed) // 2], "truncated or not gzip"),
        (lambda packed: b"<html>not here</html>", "truncated or not gzip"),
        (lambda packed: gzip.compress(gzip.decompress(packed)[:-1] + b"\xff"), "found"),
        (lambda packed: gzip.compress(gzip.decompress(packed) + b"\0" * 10**7), "found"),
    ],
)
def test_bad_file_is_moved_aside_and_never_used(
    damage: object, said: str, mirror: Path, tmp_path: Path
) -> None:
    good = (mirror / "a.gz").read_bytes()
    (mirror / "a.gz").write_bytes(damage(good))  # type: ignore[operator]
    cache = tmp_path / "cache"
    with pytest.raises(DatasetUnavailableError, match=said) as raised:
        fetch("tiny", cache)
    expected = hashlib.sha256(gzip.decompress(good)).hexdigest()
    assert expected in str(raised.value)
    assert "a.gz.corrupt" in str(raised.value)
    assert not raised.value.transient
    assert not (cache / "tiny" / "a.gz").exists()
    assert (cache / "tiny" / "a.gz.corrupt").exists()


def test_damaged_cache_is_fetched_again_and_said(mirror: Path, tmp_path: Path) -> None:
    cache, warnings = tmp_path / "cache", []
    fetch("tiny", cache)
    (cache / "tiny" / "b.gz").write_bytes(b"rot")
    fetch("tiny", cache, on_warning=warnings.append)
    assert len(warnings) == 1
    assert "b.gz" in warnings[0]
    assert (cache / "tiny" / "b.gz.corrupt").read_bytes() == b"rot"
    catalogue.load("tiny", cache)


def test_wrong_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((3, 2), dtype=np.uint8))))
    with pytest.raises(CertiflowError, match=r"x\.gz: expected an IDX file .*shape \(2, 3\)"):
        IdxFile("x.gz", (2, 3)).read(path)


def test_published_md5_of_the_compressed_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    packed = gzip.compress(idx_bytes(np.zeros((2, 3), dtype=np.uint8)))
    path.write_bytes(packed)
    md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    assert IdxFile("x.gz", (2, 3), gzip_md5=md5).read(path).shape == (2, 3)
    with pytest.raises(CertiflowError, match=f"expected MD5 {'0' * 32}, found {md5}"):
        IdxFile("x.gz", (2, 3), gzip_md5="0" * 32).read(path)


def test_no_source_names_all_of_them(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, (tmp_path / "nowhere").as_uri())
    with pytest.raises(DatasetUnavailableError, match=r"nowhere/tiny: no such file") as raised:
        fetch("tiny", tmp_path / "cache")
    assert MIRROR_VARIABLE in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bad_mirror_is_wrong_usage(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, "/some/folder")
    with pytest.raises(CertiflowError, match="'/some/folder': expected a URL"):
        fetch("tiny", tmp_path / "cache")


def test_interrupted_download_goes_on(http_mirror: type[Handler], tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailableError) as raised:
        fetch("tiny", tmp_path / "cache")
    assert raised.value.transient
    fetch("tiny", tmp_path / "cache")
    catalogue.load("tiny", tmp_path / "cache")
    assert len(http_mirror.ranges) == 1
    assert http_mirror.ranges[0] != "bytes=0-"


def test_what_one_source_has_begun_is_not_the_beginning_of_anothers(
    http_mirror: type[Handler], mirror: Path, tmp_path: Path
) -> None:
    """The first source breaks off in a gzipped file, the second one has it plain."""
    content = gzip.decompress((mirror / "a.gz").read_bytes())
    (mirror / "a").write_bytes(content)
    file = PinnedText("a", len(content), hashlib.sha256(content).hexdigest())
    addresses = [f"{download.mirror_url()}/tiny/{name}" for name in ("a.gz", "a")]
    path = download.fetch_file(file, tmp_path / "cache", addresses, remedy="")
    assert file.read(path) == content
    assert http_mirror.broken
    assert http_mirror.ranges == []


def test_missing_file_is_not_retried(
    http_mirror: type[Handler], mirror: Path, tmp_path: Path
) -> None:
    (mirror / "a.gz").unlink()
    with pytest.raises(DatasetUnavailableError, match="HTTP 404") as raised:
        fetch("tiny", tmp_path / "cache")
    assert not raised.value.transient


def test_parallel_runs_share_a_cache(mirror: Path, tmp_path: Path) -> None:
    errors: list[Exception] = []

    def run() -> None:
        try:
            fetch("tiny", tmp_path / "cache")
            catalogue.load("tiny", tmp_path / "cache")
        except CertiflowError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("name", ["readonly", "full"])
def test_cache_that_cannot_be_written(
    name: str, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    if name == "readonly":
        cache.write_text("a file where a folder should be")
    else:
        monkeypatch.setattr(download.Path, "write_bytes", _no_space)
    with pytest.raises(CertiflowError, match=r"data\.cache"):
        fetch("tiny", cache)


def _no_space(*arguments: object) -> int:
    raise OSError(28, "No space left on device")


def test_mnist_is_the_published_one(mnist_mirror: str, tmp_path: Path) -> None:
    fetch("mnist", tmp_path)
    mnist = catalogue.load("mnist", tmp_path)
    assert mnist.train_inputs.shape == (60_000, 28, 28)
    # the test set's class counts, as published with MNIST
    expected = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(mnist.test_labels), expected)
