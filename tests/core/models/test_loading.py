"""Any model file gives the float64 network and the float32 runtime of the same function."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.files import ArtifactRef
from tasks.core.models.agreement import check_agreement
from tasks.core.models.loading import MODELS_KEPT, load, load_artifact
from tasks.core.models.runtimes import Classifier, NumpyRuntime, Runtime
from tasks.core.networks.network import ReluNetwork
from tests.model_files import NNET_LINES, normal, saved_nnet, saved_onnx
from tests.networks import random_network


def _onnx(folder: Path) -> Path:
    weight = normal(8, 3)
    nodes = [make_node("Flatten", ["x"], ["f"]), make_node("MatMul", ["f", "a"], ["y"])]
    return saved_onnx(folder, nodes, {"a": weight}, shape=("n", 2, 4))


def _nnet(folder: Path) -> Path:
    return saved_nnet(folder, NNET_LINES)


def _keras(folder: Path) -> Path:
    hidden = keras.layers.Dense(5, activation="relu")
    model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(2)])
    model.save(folder / "model.keras")
    return folder / "model.keras"


@pytest.mark.parametrize(("write", "shape"), [(_onnx, (2, 4)), (_nnet, (2,)), (_keras, (3,))])
def test_network_and_runtime_agree(
    write: Callable[[Path], Path], shape: tuple[int, ...], tmp_path: Path
) -> None:
    model = load(write(tmp_path))
    assert model.input_shape == model.runtime.input_shape == shape
    points = np.random.default_rng(0).normal(size=(7, *shape)).astype(np.float32)
    outputs = model.runtime.logits(points)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(model.network(points), outputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("write", [_onnx, _nnet, _keras])
def test_a_file_is_read_once_while_it_stays_the_same(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = write(tmp_path)
    model = load(path)
    assert load(path) is model
    assert load_artifact(ArtifactRef.to(path)) is model
    path.with_name("other").write_bytes(path.read_bytes())
    path.unlink()
    with pytest.raises(CertiflowError, match="no such file"):
        load(path)
    path.with_name("other").rename(path)
    assert load(path) is model


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model.nnet"
    path.write_text("\n".join(NNET_LINES))
    before = load(path)
    reference = ArtifactRef.to(path)
    last = NNET_LINES[-1]
    changed = last.replace(last.split(",")[0], "7.25", 1)
    path.write_text("\n".join([*NNET_LINES[:-1], changed]))
    assert load(path).network.layers[-1].bias[-1] == 4.0 * 7.25 + 7.5  # the outputs' range and mean
    assert before.network.layers[-1].bias[-1] == 4.0 * float(last.rstrip(",")) + 7.5
    with pytest.raises(CertiflowError, match="expected SHA-256"):
        load_artifact(reference)


def test_a_file_that_changes_before_its_runtime_reads_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a model so much alike that its outputs do not tell."""
    path, compared = _onnx(tmp_path), check_agreement
    model = onnx.load(path)
    (weights,) = model.graph.initializer
    changed = np.nextafter(onnx.numpy_helper.to_array(weights), np.float32(np.inf))
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, weights.name))

    def agreed(network: ReluNetwork, runtime: Runtime, points: FloatArray) -> None:
        path.write_bytes(model.SerializeToString())
        compared(network, runtime, points)

    monkeypatch.setattr("tasks.core.models.loading.check_agreement", agreed)
    with pytest.raises(CertiflowError, match="changed while it was read"):
        load(path)


def test_few_models_are_kept(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = _nnet(tmp_path / "first")
    kept = weakref.ref(load(first))
    for number in range(MODELS_KEPT):
        (tmp_path / str(number)).mkdir()
        load(_nnet(tmp_path / str(number)))
    gc.collect()
    assert kept() is None


def test_batches_of_another_size_share_what_is_traced(tmp_path: Path) -> None:
    classifier = load(_keras(tmp_path)).runtime
    assert isinstance(classifier, Classifier)
    small = classifier.batched(2)
    assert [part.stop for part in small.batches(3)] == [2, 4]
    assert small.loss_gradient is classifier.loss_gradient
    points = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(small.logits(points), classifier.logits(points), atol=1e-6)


def test_linear_units_in_float32() -> None:
    plain = random_network(np.random.default_rng(0), (3, 4, 4, 2))
    mask = np.array([True, False, False, True])
    network = ReluNetwork(plain.layers, (mask, ~mask))
    points = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    np.testing.assert_allclose(NumpyRuntime(network).logits(points), network(points), atol=1e-6)


def test_files_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match=r"unknown kind of model '\.h5'; expected \.onnx, "):
        load(tmp_path / "model.h5")
    for suffix in (".onnx", ".nnet", ".keras"):
        with pytest.raises(CertiflowError, match="no such file"):
            load(tmp_path / f"absent{suffix}")
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no archive")
    with pytest.raises(CertiflowError, match=r"broken\.keras: Keras cannot load this model: ") as e:
        load(broken)
    assert "\n" not in str(e.value)
    layers = [keras.layers.GaussianNoise(0.1), keras.layers.Dense(2)]
    keras.Sequential([keras.Input((3,)), *layers]).save(broken)
    with pytest.raises(CertiflowError, match=r"broken\.keras: layer 1 .*\(GaussianNoise\)"):
        load(broken)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("m.h5", r"load_model\('.*m\.h5', compile=False\)\.save\('m\.keras'\)"),
        ("m.HDF5", r"\.save\('m\.keras'\)"),
        ("m.pt", r"torch\.onnx\.export\(model, example_input, 'm\.onnx'"),
        ("m.pth", r"torch\.onnx\.export"),
        ("m.pkl", r"skl2onnx\.to_onnx\(.*'zipmap': False.*'m\.onnx'"),
        ("m.joblib", r"skl2onnx\.to_onnx"),
        ("saved", r"python -m tf2onnx\.convert --saved-model .*saved --output saved\.onnx"),
    ],
)
def test_other_formats_are_named_with_what_converts_them(
    name: str, command: str, tmp_path: Path
) -> None:
    """And never opened: a pickle runs what it likes."""
    if name == "saved":
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    with pytest.raises(
        CertiflowError, match=f"unknown kind of model .*convert it by .*{command}"
    ) as e:
        load(tmp_path / name)
    assert "\n" not in str(e.value)


def test_code_in_a_model_is_not_run(tmp_path: Path) -> None:
    code = keras.layers.Lambda(lambda x: x, output_shape=(3,))
    model = keras.Sequential([keras.Input((3,)), code, keras.layers.Dense(2)])
    model.save(tmp_path / "code.keras")
    with pytest.raises(CertiflowError, match="Keras cannot load this model"):
        load(tmp_path / "code.keras")


def test_reading_does_not_need_tensorflow(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tasks.core.readers import keras_network\n"
        "from tasks.core.properties import vnnlib\n"
        "from tasks.core.models.loading import load\n"
        f"load(Path({str(_onnx(tmp_path))!r})); load(Path({str(_nnet(tmp_path))!r}))\n"
        "print(*{'tensorflow', 'keras', 'mlflow', 'prefect'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []


def test_models_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    """Also when their runtimes have been opened, as loading does."""
    for path in (_onnx(tmp_path), _nnet(tmp_path)):
        model = load(path)
        sent = pickle.loads(pickle.dumps(model))
        points = np.random.default_rng(0).random((3, *model.input_shape)).astype(np.float32)
        np.testing.assert_array_equal(sent.runtime.logits(points), model.runtime.logits(points))
        assert sent.network.sha256 == model.network.sha256


def test_the_runtime_of_onnx_tells_nobody(tmp_path: Path) -> None:
    """Its telemetry leaves the device's name in the user's cache, and sends what is read there."""
    program = (
        "import sys; from pathlib import Path; from tasks.core.models.loading import load\n"
        f"load(Path({str(_onnx(tmp_path))!r})); print('onnxruntime' in sys.modules)"
    )
    home = tmp_path / "home"
    home.mkdir()
    # Where it believes itself in a test or in CI it is silent anyway.
    silent = {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "XDG_CACHE_HOME"}
    environment = {key: value for key, value in os.environ.items() if key not in silent}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "True"
    assert not list(home.rglob("*onnxruntime*"))
