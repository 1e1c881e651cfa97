"""What docs/security.md says, where no other test holds it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from flows.robustness import robustness_flow
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.sources import own_data
from tasks.presentation import comparison, page
from tasks.presentation.markdown import inline
from tests.browser import render
from tests.flow_project import flow_project, smoke
from tests.imports import ROOT

HOSTILE = (
    "<script>document.title='taken'</script>",
    "<img src=x onerror=\"console.error('taken')\">",
    "a|b\n# c",
    "\u202egnorw\u202c",
    "x" * 300,
    r"$\frac$",
    "[press](javascript:alert(1))",
    "`code`",
    "&amp;",
    "bell\x07",
)


@pytest.fixture(scope="module")
def hostile(
    tmp_path_factory: pytest.TempPathFactory, digits: Dataset, prefect_api: str
) -> Iterator[Path]:
    """A project whose only version was trained on digits with names like these."""
    with flow_project(tmp_path_factory.mktemp("project")) as folder:
        np.savez(
            folder / "hostile.npz",
            train_images=digits.train_inputs,
            train_labels=digits.train_labels,
            test_images=digits.test_inputs,
            test_labels=digits.test_labels,
            class_names=np.array([f"{HOSTILE[1]} {name}" for name in HOSTILE]),
        )
        robustness_flow(smoke("data.dataset=hostile.npz"))
        yield folder


def test_names_are_text_on_the_report_page(hostile: Path, tmp_path: Path) -> None:
    written = page.write(comparison.collect(["1"], ""))
    text = written.path.read_text()
    assert "&lt;img src=x onerror=&#34;" in text
    assert not re.search(r"<script>document|<img src=x", text)
    for width in (360, 1200):
        rendered = render(written.path, width, tmp_path)
        assert rendered.console == []
        assert rendered.broken_images == 0
        assert rendered.content_width <= width


def test_names_are_text_in_descriptions(hostile: Path) -> None:
    version = MlflowClient().get_model_version("certiflow-hostile", "1")
    run = MlflowClient().get_run(version.run_id)
    (card,) = hostile.glob("runs/*/data_card.md")
    rows = [line for line in card.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(HOSTILE)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    for text in (card.read_text(), version.description, run.data.tags["mlflow.note.content"]):
        assert not re.search(r"<(script|img)|\]\(javascript|\u202e|\x07", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_words_in_a_line_of_markdown(text: str) -> None:
    shown = inline(text)
    assert shown.isprintable()
    assert "<" not in shown
    assert not re.search(r"(?<!\\)[`|]", shown)
    assert "](" not in shown


class _Trap:
    """Whoever reads its pickle makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["test_images", "class_names"])
def test_a_pickle_in_data_is_not_read(name: str, digits: Dataset, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    arrays = {
        "train_images": digits.train_inputs,
        "train_labels": digits.train_labels,
        "test_images": digits.test_inputs,
        "test_labels": digits.test_labels,
    }
    np.savez(tmp_path / "data.npz", **arrays | {name: np.array([_Trap(trap)], dtype=object)})
    with pytest.raises(CertiflowError, match="data"):
        own_data.load_own(tmp_path / "data.npz")
    assert not trap.exists()


def test_libraries_send_nothing_home() -> None:
    """In a process whose user has set nothing."""
    program = (
        "from flows.processes import environment; environment.prepare(verbose=False)\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "from prefect.settings import get_current_settings\n"
        "settings = get_current_settings()\n"
        "print(is_telemetry_disabled(), settings.server.analytics_enabled,\n"
        "      settings.cloud.enable_orchestration_telemetry)"
    )
    silent = re.compile("TELEMETRY|ANALYTICS|DO_NOT_TRACK|^CI$|^PYTEST")
    environment = {name: value for name, value in os.environ.items() if not silent.search(name)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["True", "False", "False"]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-bench.lock"])
def test_every_package_is_pinned_by_hash(name: str) -> None:
    text = (ROOT / name).read_text()
    packages = re.split(r"\n(?=[A-Za-z])", text)[0 if text[0].isalpha() else 1 :]
    assert len(packages) > 100
    for package in packages:
        assert re.match(r"[\w.-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", package), package[:80]
