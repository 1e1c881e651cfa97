"""The CAV 2017 table: its published facts, its properties, and the network's two sources."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.data.pinned_files import PinnedFile
from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import Resources
from tasks.core.files import sha256_of
from tasks.core.models.loading import LoadedModel
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.queries.properties import Instance, verify_instances
from tasks.core.sources.download import MIRROR_VARIABLE, DatasetUnavailableError
from tasks.core.verification import reluplex
from tasks.core.verification.reluplex import PublishedCell, cells, load_network
from tests.model_files import NNET_LINES, saved_nnet
from tests.property_files import saved_distance


def test_table_is_the_paper_s() -> None:
    table = cells()
    assert len(table) == 25
    assert sum(cell.paper_seconds for cell in table) == 33_182
    assert [cell.paper_verdict for cell in table].count("sat") == 6
    assert [(c.point, c.delta) for c in table if c.established != c.paper_verdict] == [(4, 0.05)]
    assert [(c.point, c.delta) for c in table if c.remark] == [(4, 0.05)]


def test_property_is_that_the_minimal_output_stays_minimal_in_the_legal_range() -> None:
    """Outputs are (X_0, -X_0, 1, 2, 3): at point 5, X_0 = 0.61, the second is minimal."""
    weight = np.zeros((5, 5))
    weight[0, 0], weight[1, 0] = 1, -1
    network = ReluNetwork((Affine(weight, np.array([0.0, 0.0, 1.0, 2.0, 3.0])),))
    prop = PublishedCell(5, 0.1, "unsat", 1, "unsat").property(
        LoadedModel(network, NumpyRuntime(network))
    )
    assert len(prop.unsafe) == 4
    box = prop.unsafe[0].box
    np.testing.assert_allclose(box.lower, [[0.51, 0.26, -0.1, -0.1, -0.34]])
    np.testing.assert_allclose(box.upper, [[0.67985777, 0.46, 0.1, 0.1, -0.14]])
    minimal, tied = np.array([[1.0, -1, 1, 2, 3]]), np.array([[1.0, -1, -1, 2, 3]])
    assert min(region.excess(minimal)[0] for region in prop.unsafe) == 2
    assert min(region.excess(tied)[0] for region in prop.unsafe) == 0  # a tie is not robust


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with a small ONNX file and a public source with a small `.nnet` file."""
    mirror, public = tmp_path / "mirror" / reluplex.ONNX_FOLDER, tmp_path / "public"
    mirror.mkdir(parents=True)
    public.mkdir()
    for name, path in (
        ("ONNX_FILE", saved_distance(mirror)),
        ("NNET_FILE", saved_nnet(public, NNET_LINES)),
    ):
        pinned = PinnedFile(path.name, sha256_of(path.read_bytes()))
        monkeypatch.setattr(reluplex, name, pinned)
    monkeypatch.setattr(reluplex, "NNET_SOURCE", public.as_uri())
    monkeypatch.setenv(MIRROR_VARIABLE, (tmp_path / "mirror").as_uri())
    return tmp_path


def test_mirror_comes_first_and_the_cache_is_used_again(sources: Path) -> None:
    assert load_network(sources / "data").network.num_outputs == 2
    (sources / "mirror" / reluplex.ONNX_FOLDER / "model.onnx").unlink()
    assert load_network(sources / "data").network.num_outputs == 2


@pytest.mark.parametrize("mirror", [None, "elsewhere"])
def test_public_source_without_a_mirror_or_when_it_has_no_such_file(
    mirror: str | None, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mirror is None:
        monkeypatch.delenv(MIRROR_VARIABLE)
    else:
        monkeypatch.setenv(MIRROR_VARIABLE, (sources / mirror).as_uri())
    model = load_network(sources / "data")
    assert (model.network.num_inputs, model.network.num_outputs) == (2, 1)
    x = np.array([[0.5, -0.25]])
    bare = np.array([1.0, -2.0, 0.5]) @ np.maximum(
        np.array([[1.0, 2.0], [-1.0, 0.5], [3.0, 0.0]]) @ x[0] + [0.1, 0.2, -0.3], 0
    )
    np.testing.assert_allclose(model.network(x), [[bare + 0.25]])
    np.testing.assert_allclose(model.runtime.logits(x.astype(np.float32)), [[bare + 0.25]])


def test_wrong_content_is_never_used(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(reluplex.NNET_FILE, sha256="0" * 64)
    monkeypatch.setattr(reluplex, "NNET_FILE", wrong)
    monkeypatch.setenv(MIRROR_VARIABLE, (sources / "elsewhere").as_uri())
    with pytest.raises(DatasetUnavailableError, match="expected SHA-256 0000") as raised:
        load_network(sources / "data")
    message = str(raised.value)
    assert "elsewhere" in message
    assert f"{reluplex.ONNX_FOLDER}/model.onnx" in message
    assert "\n" not in message
    assert not (sources / "data" / "acasxu" / wrong.name).exists()


def test_cache_that_cannot_be_written(sources: Path) -> None:
    (sources / "file").write_text("not a folder")
    with pytest.raises(CertiflowError, match="make it writable"):
        load_network(sources / "file")


@pytest.mark.skipif(
    not os.environ.get(MIRROR_VARIABLE), reason=f"needs ACAS Xu: set {MIRROR_VARIABLE} to a mirror"
)
def test_all_established_verdicts(tmp_path: Path) -> None:
    model, table = load_network(tmp_path / "data"), cells()
    results = verify_instances(
        [Instance(model, cell.property(model), 60) for cell in table],
        Resources(2, 4 * 2**30),
        engine="ladder",
        seed=0,
        store=None,
        fresh=False,
    )
    assert [found.verdict for found in results] == [cell.established for cell in table]
    assert sum(found.seconds for found in results) < 180
