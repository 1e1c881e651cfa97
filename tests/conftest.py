"""Fixtures that many tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Libraries read these when they are loaded, and what tests start inherits them. Two workers with as
# many threads each as there are cores would wait for each other.
for name in ("MKL", "NUMBA", "OMP", "OPENBLAS"):
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")
for name in ("INTER", "INTRA"):
    os.environ.setdefault(f"TF_NUM_{name}OP_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # where a test imports onnxruntime itself

MEMORY, MEMORY_BYTES = "/dev/shm", 2**31


def has_memory_files() -> bool:
    """Files can be kept in memory: it has room, and device nodes work there."""
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize > MEMORY_BYTES and not found.f_flag & os.ST_NODEV


if "TMPDIR" not in os.environ and has_memory_files():  # SQLite waits for a disk at every commit
    os.environ["TMPDIR"] = tempfile.tempdir = MEMORY

from flows.processes import environment  # noqa: E402

environment.prepare(verbose=False)

import keras  # noqa: E402  reads what was prepared, as the commands under test do
import numpy as np  # noqa: E402

from tasks.core.data.datasets import Dataset  # noqa: E402
from tasks.core.models.runtimes import Classifier  # noqa: E402
from tasks.core.networks import block_matrix, cones  # noqa: E402
from tasks.core.sources import catalogue  # noqa: E402
from tasks.core.sources.download import MIRROR_VARIABLE  # noqa: E402
from tasks.core.training import loop  # noqa: E402  after the environment is quiet
from tasks.core.training.training_settings import TrainingSettings  # noqa: E402
from tests import command  # noqa: E402
from tests.oracle import ANSWERS  # noqa: E402

# Their tests follow each other, or share what takes long to make, so that one worker has them all.
# The longest go first, and before what is short, so that every core is busy to the end.
STORIES = (
    "test_shared_stores",
    "test_model_flow",
    "test_version_commands",
    "test_versions",
    "test_serving",
    "test_cluster",
    "test_questions_on_cluster",
    "test_flow",
    "test_retraining",
    "test_passwords",
    "test_cli",
    "test_study",
    "test_evaluation",
    "test_guard_evaluation",
    "test_evidence",
    "test_completions",
    "test_numbers",
    "test_page",
    "test_colour",
    "test_predict",
)
LONG = ("test_soundness", "test_ladder")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep-answers",
        action="store_true",
        help="replace the oracle's kept answers by those that this run, without xdist, asks for",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("keep_answers"):
        ANSWERS.kept.clear()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("keep_answers"):
        ANSWERS.save()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts what is long before the rest."""
    order = [*STORIES, *LONG]
    items.sort(key=lambda item: order.index(item.path.stem) if item.path.stem in order else 99)


class StoryScheduling(LoadScopeScheduling):
    """A story's tests go to one worker; others wherever there is time."""

    def _split_scope(self, nodeid: str) -> str:
        stem = Path(nodeid.partition("::")[0]).stem
        if stem not in STORIES:
            return nodeid
        return "cluster" if stem.endswith("cluster") else stem


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores, at most 4 (each takes a GB or two): stories wait for their servers."""
    return min(len(os.sched_getaffinity(0)) + 1, 4)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> StoryScheduling:
    """Instead of `--dist=loadgroup`, whose groups pytest 9 does not see."""
    return StoryScheduling(config, log)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return catalogue.load("digits", Path("unused"))


@pytest.fixture(scope="session")
def classifier(digits: Dataset) -> Classifier:
    """A dense network of 32 units on the digits, a little trained."""
    settings = TrainingSettings(hidden=(32,), epochs=10, learning_rate=0.003)
    trained = loop.train(digits, settings, seed=0)
    return Classifier(trained.model)


@pytest.fixture(scope="session")
def linear() -> Classifier:
    """Two logits on 2x2 images, linear: its worst point in a ball is known in closed form."""
    model = keras.Sequential([keras.Input((2, 2)), keras.layers.Flatten(), keras.layers.Dense(2)])
    weight = np.array([[1.0, -1.0], [0.5, 0.25], [-1.0, 1.0], [0.0, 2.0]], dtype=np.float32)
    model.set_weights([weight, np.array([0.6, 0.0], dtype=np.float32)])
    return Classifier(model)


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix that is lowered is stored in blocks, however small, and bounded by cones."""
    monkeypatch.setattr(block_matrix, "LEAST_DENSE", 0)
    monkeypatch.setattr(block_matrix, "BLOCK_SHARE", np.inf)
    monkeypatch.setattr(cones, "MOST_READ", np.inf)


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """The URL of the session's Prefect API, which flows in this process and its threads use."""
    from prefect.context import refresh_global_settings_context

    url = command.prefect_url()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", url)
        refresh_global_settings_context()
        yield url
    refresh_global_settings_context()


@pytest.fixture(scope="session")
def mnist_mirror() -> Iterator[str]:
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        pytest.skip(f"needs MNIST: set {MIRROR_VARIABLE} to a mirror that holds it")
    return mirror
