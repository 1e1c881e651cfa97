"""Images in colour, of one's own, through all stages to the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

from flows.robustness import robustness_flow
from tasks.presentation import comparison, page
from tasks.presentation.records import Summary
from tests.browser import render
from tests.flow_project import flow_project, smoke

CLASSES = ("red", "green", "blue")


def tinted(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images of noise, (count, 12, 12, 3), the label's channel brighter than the others."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    images = generator.integers(0, 140, (count, 12, 12, 3))
    images[np.arange(count), :, :, labels] += 60
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Summary]:
    with flow_project(tmp_path_factory.mktemp("project")):
        parts = {"train": tinted(300, seed=0), "test": tinted(60, seed=1)}
        arrays = {f"{part}_images": images for part, (images, _) in parts.items()}
        arrays |= {f"{part}_labels": labels for part, (_, labels) in parts.items()}
        np.savez("tints.npz", class_names=np.array(CLASSES), **arrays)
        yield robustness_flow(
            smoke(
                "data.dataset=tints.npz",
                "training.architecture=cnn_small",
                "attack.epsilons=[0,0.02,0.3]",
                "verification.epsilons=[0.02,0.3]",
                "radius.samples=2",
            )
        )


def colourful(pixels: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which pixels are not gray."""
    return np.ptp(pixels[..., :3], axis=-1) > 0.15


def test_all_stages_take_colour(summary: Summary) -> None:
    run = MlflowClient().get_run(summary.run_id)
    assert run.info.status == "FINISHED"
    assert summary.clean_accuracy > 0.9
    at = {row["epsilon"]: row for row in summary.verification}
    assert at[0.02]["robust"] > 0
    assert at[0.3]["falsified"] > 0
    for row in at.values():
        assert row["error"] == 0
    assert summary.median_radius is not None
    assert summary.median_radius[0] > 0


def test_examples_are_in_colour(summary: Summary) -> None:
    path = Path(summary.folder) / "figures" / "adversarial_examples.png"
    clean = matplotlib.image.imread(path)
    clean = clean[:, : clean.shape[1] // 6]  # the first of five columns
    assert colourful(clean).mean() > 0.1


def test_pictures_of_the_page_are_in_colour(summary: Summary, tmp_path: Path) -> None:
    written = page.write(comparison.collect([summary.run_id], ""), path=tmp_path / "page.html")
    text = written.path.read_text()
    sources = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    assert len(sources) >= 2
    for source in sources:
        pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(source)))
        assert pixels.shape[:2] == (12, 12)
        assert colourful(pixels).mean() > 0.5
    assert re.search(r"label (red|green|blue)<", text)
    assert re.search(r"v1 champion: (red|green|blue) at ε 0\.", text)
    rendered = render(written.path, 1200, tmp_path)
    assert (rendered.console, rendered.broken_images) == ([], 0)
    assert rendered.images == len(sources)
