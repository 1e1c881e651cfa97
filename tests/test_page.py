"""The report page in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.robustness import robustness_flow
from tasks import comparison, page
from tests.browser import render
from tests.flow_project import flow_project, smoke

PHONE, DESK = 360, 1200


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> Iterator[page.Page]:
    """A page on two versions with broken points, the first of them champion."""
    with flow_project(tmp_path_factory.mktemp("project")):
        for epochs in (12, 8):
            robustness_flow(smoke(f"training.epochs={epochs}", "verification.epsilons=[0.05,0.2]"))
        yield page.write(comparison.collect(["1", "2"], ""))


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_renders_within_the_width_and_without_complaint(
    width: int, written: page.Page, tmp_path: Path
) -> None:
    rendered = render(written.path, width, tmp_path)
    assert rendered.content_width <= width
    assert rendered.console == []
    assert rendered.broken_images == 0
    assert rendered.images >= 2  # an image and its counterexample at least


def test_it_fetches_nothing(written: page.Page) -> None:
    text = written.path.read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", text) == []
    assert re.findall(r"url\((?!#)[^)]*\)|@import", text) == []


def test_it_tells_what_the_versions_are_and_what_differs(written: page.Page) -> None:
    text = written.path.read_text()
    for words in ("training.epochs", "champion", "exact McNemar", "no champion to compare with"):
        assert words in text
    assert text.count("<svg") == 3


def test_it_is_logged_on_the_newest_run(written: page.Page) -> None:
    newest = MlflowClient().get_model_version("certiflow-digits", "2").run_id
    assert written.run_id == newest
    names = {entry.path for entry in MlflowClient().list_artifacts(newest)}
    assert "report.html" in names
