"""What the figures show of their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from tasks.core.evidence import figures, radius_figures, version_figures
from tasks.core.evidence.comparison import Evidence
from tasks.core.evidence.figures import AdversarialExamples
from tasks.core.evidence.metrics import verification_summary
from tasks.core.evidence.sampling import share_interval


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been saved."""
    found: list[Figure] = []

    def keep(figure: Figure, path: Path) -> None:
        figure.canvas.draw()
        found.append(figure)

    for module in (figures, radius_figures):
        monkeypatch.setattr(module, "save", keep)
    return found


def labels(figure: Figure) -> list[str]:
    return [str(label) for label in figure.axes[0].get_legend_handles_labels()[1]]


def verification() -> pd.DataFrame:
    """Ten points at 0.05: three proved, one broken."""
    verdicts = ["robust"] * 3 + ["falsified"] + ["unknown"] * 6
    return pd.DataFrame(
        {
            "sample_index": range(10),
            "epsilon": 0.05,
            "verdict": verdicts,
            "reason": "",
            "seconds": 0.1,
        }
    )


def bars(figure: Figure) -> list[Any]:
    """Ends of the vertical lines in data units."""
    collections = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    return [segment[:, 1].tolist() for c in collections for segment in c.get_segments()]


def test_verified_sample_has_its_interval_and_number(drawn: list[Figure]) -> None:
    grid = pd.DataFrame(
        {
            "epsilon": [0.0, 0.05],
            "clean_accuracy": 0.9,
            "fgsm_accuracy": [0.9, 0.6],
            "pgd_accuracy": [0.9, 0.5],
            "certified_accuracy": [0.9, 0.2],
        }
    )
    figures.robustness_curve(
        grid, verification_summary(verification()), "title", "pixels", Path("unused")
    )
    (figure,) = drawn
    assert "proved of 10 sampled points, 95% interval" in labels(figure)
    assert pytest.approx(share_interval(3, 10)) in bars(figure)
    assert pytest.approx([0.3, 0.9]) in bars(figure)  # from what is proved to what is not broken


@pytest.mark.parametrize("undecided", [True, False])
def test_of_the_whole_test_set_the_exact_curve_is_drawn(
    undecided: bool, drawn: list[Figure]
) -> None:
    table = verification()
    if not undecided:
        table["verdict"] = table["verdict"].replace("unknown", "falsified")
    grid = pd.DataFrame(
        {"epsilon": [0.05], "clean_accuracy": 0.9, "fgsm_accuracy": 0.6, "pgd_accuracy": 0.5}
    ).assign(certified_accuracy=0.2)
    summary = verification_summary(table, test_size=10)
    figures.robustness_curve(grid, summary, "title", "pixels", Path("unused"))
    (figure,) = drawn
    told = "exact to within 60.00% of the points" if undecided else "exact: all 10 points decided"
    assert told in labels(figure)
    assert ("neither broken nor proved" in labels(figure)) is undecided
    assert not any("sampled" in label for label in labels(figure))


def test_versions_stand_beside_each_other_with_their_intervals() -> None:
    points = {"epsilons": np.array([0.0, 0.05])} | {
        name: np.ones((2, 4), dtype=bool) for name in ("pgd", "certified")
    }
    evidence = Evidence("d", points, verification(), None, {})
    figure = version_figures.curves({"v1": evidence, "v2": evidence}, 0.05)
    for name in ("v1", "v2"):
        assert f"{name}: proved of 10 sampled points, 95% interval" in labels(figure)
    places = {
        float(line.get_xdata()[0]) for line in figure.axes[0].lines if line.get_marker() == "D"
    }
    assert len(places) == 2


def test_only_classes_of_ten_points_have_a_curve(drawn: list[Figure]) -> None:
    table = pd.DataFrame({"label": [0] * 10 + [1] * 9, "proved": np.linspace(0.01, 0.1, 19)})
    table["falsified"] = table["proved"] + 0.01
    radius_figures.radius_curves(table, 0.2, "title", "pixels", Path("unused"))
    found = labels(drawn[0])
    assert "class 0, 10 points" in found
    assert not any(label.startswith("class 1") for label in found)
    assert "all 19 points: proved" in found


def test_changes_stand_with_their_epsilon_and_a_scale(drawn: list[Figure]) -> None:
    epsilons = [0.0, 0.05, 0.3]
    points = np.full((3, 2, 8, 8), 0.5, dtype=np.float32)
    points += np.array(epsilons, dtype=np.float32)[:, None, None, None]
    examples = AdversarialExamples(
        epsilons=epsilons,
        labels=np.array([3, 4]),
        points=points,
        predictions=np.array([[3, 4], [3, 4], [3, 5]]),
        confidences=np.full((3, 2), 0.9, dtype=np.float32),
    )
    names = tuple("abcdef")
    figures.adversarial_examples(examples, names, Path("unused"))
    (figure,) = drawn
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["clean", "change, ε = 0.05", "ε = 0.05", "change, ε = 0.3", "ε = 0.3"]
    scales = [axes for axes in figure.axes if axes.get_xlim() in {(-0.05, 0.05), (-0.3, 0.3)}]
    assert [[text.get_text() for text in axes.get_xticklabels()] for axes in scales] == [
        ["-0.05", "0", "0.05"],
        ["-0.3", "0", "0.3"],
    ]
    images = [axes for axes in figure.axes if axes.images]
    assert [axes.get_ylabel() for axes in images if axes.get_ylabel()] == ["d", "e"]
    assert [axes.get_xlabel() for axes in images if axes.get_xlabel()].count("f (90%)") == 1
    rows = {round(axes.get_position().y0, 6) for axes in figure.axes if axes.images}
    assert len(rows) == 2  # the panels of an image are on one line
