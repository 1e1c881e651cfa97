"""The report page in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.promotion import promote_flow
from flows.robustness import robustness_flow
from tasks.presentation import comparison, page
from tests.browser import render
from tests.flow_project import flow_project, smoke

PHONES, DESK = (360, 390), 1200


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[page.Page]:
    """A page on two versions with broken points, judged against each other."""
    with flow_project(tmp_path_factory.mktemp("project")):
        for epochs in (12, 8):
            robustness_flow(smoke(f"training.epochs={epochs}", "verification.epsilons=[0.05,0.2]"))
        promote_flow("2")
        yield page.write(comparison.collect(["1", "2"], ""))


@pytest.mark.parametrize("width", [*PHONES, DESK])
def test_it_renders_within_the_width_and_without_complaint(
    width: int, written: page.Page, tmp_path: Path
) -> None:
    rendered = render(written.path, width, tmp_path)
    assert rendered.content_width <= width
    assert rendered.console == []
    assert rendered.broken_images == 0
    assert rendered.images >= 2  # an image and its counterexample at least
    assert rendered.tables >= 4
    assert rendered.tables_that_do_not_scroll == 0
    assert (rendered.tables_scrolling > 0) is (width in PHONES)


def test_it_fetches_nothing(written: page.Page) -> None:
    text = written.path.read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", text) == []
    assert re.findall(r"url\((?!#)[^)]*\)|@import", text) == []


def test_it_tells_what_the_versions_are_and_what_differs(written: page.Page) -> None:
    text = written.path.read_text()
    for words in ("training.epochs", "champion", "exact McNemar", "no champion to compare with"):
        assert words in text
    assert text.count("<svg") == 3


def test_it_holds_what_an_audit_asks_for(written: page.Page) -> None:
    text = written.path.read_text()
    client = MlflowClient()
    for number in ("1", "2"):
        run = client.get_run(client.get_model_version("certiflow-digits", number).run_id)
        names = ("dataset.sha256", "model.sha256", "network.sha256", "git.commit", "libraries")
        for name in names:
            assert run.data.tags[name] in text
        assert run.info.run_id in text
        confirmed = run.data.metrics["verification/witness_confirmed"]
        assert f"{confirmed:.0f} confirmed" in text
    assert len(re.findall(r"<summary>settings of v\d(?: \w+)?</summary>", text)) == 2
    assert "http://127.0.0.1" not in text


def test_sampled_numbers_say_how_many_and_how_sure(written: page.Page) -> None:
    text = written.path.read_text()
    assert re.search(r"\d+-\d+%, n = 5", text)
    assert "95% Clopper-Pearson" in text
    assert "of all 360 test points" in text


def test_certified_difference_of_table_and_decision_is_one_on_stated_points(
    written: page.Page,
) -> None:
    """The runs verified five points each, the gate twenty."""
    text = written.path.read_text()
    assert re.search(r"differences of certified: v\d on the gate&#39;s 20 points", text)
    assert text.count("n = 20") == 1
    assert "v1 at ε 0.2" in text


def test_it_is_logged_on_the_newest_run(written: page.Page) -> None:
    newest = MlflowClient().get_model_version("certiflow-digits", "2").run_id
    assert written.run_id == newest
    names = {entry.path for entry in MlflowClient().list_artifacts(newest)}
    assert "report.html" in names
