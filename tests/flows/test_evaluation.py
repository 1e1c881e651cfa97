"""A table and models of one's own, the whole way: beside a model that certiflow trained."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.evaluation import evaluation_flow
from flows.promotion import promote_flow
from flows.retraining import retrain_flow
from flows.robustness import robustness_flow
from tasks.core.data.datasets import Dataset
from tasks.core.models.loading import load
from tasks.core.pairs.requirements import TOLERANCE
from tasks.data import DatasetRef, load_checked
from tasks.presentation import comparison, page
from tasks.presentation.records import Decision, Summary
from tasks.settings import DataSettings, Settings
from tasks.tracking import RegisteredModel
from tasks.versions.data_check import check_data
from tests.browser import render
from tests.flow_project import flow_project, smoke
from tests.flows.test_flow import artifacts
from tests.loans import loans, save_as_scikit_learn, trained, write_loans

MODEL = "certiflow-loans"
REQUIRED = (
    "properties={monotone: {age: up, months: up}, fair: [job], samples: 4, epsilons: [0.02], "
    "timeout_seconds: 5, workers: 1}"
)


def settings(*overrides: str) -> Settings:
    return smoke(
        "data.dataset=loans.yaml",
        "training.epochs=20",
        "attack.epsilons=[0,0.02,0.3]",
        "verification.epsilons=[0.02,0.3]",
        "verification.samples=10",
        *overrides,
    )


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Path]:
    with flow_project(tmp_path_factory.mktemp("project")) as folder:
        write_loans(folder)
        yield folder


@pytest.fixture(scope="module")
def data(project: Path) -> Dataset:
    return loans(project)


@pytest.fixture(scope="module")
def summaries(project: Path, data: Dataset) -> dict[str, Summary]:
    """Version 1 is trained here; 2 and 3 are one network in two files."""
    model = trained(data)
    model.save("bank.keras")
    save_as_scikit_learn(model, Path("bank.onnx"))
    return {
        "1": robustness_flow(settings()),
        "2": evaluation_flow(settings(REQUIRED), Path("bank.keras"), "bank-keras"),
        "3": evaluation_flow(settings(), Path("bank.onnx"), "bank-onnx"),
    }


def run_of(summary: Summary) -> Run:
    return MlflowClient().get_run(summary.run_id)


@pytest.mark.parametrize("version", ["2", "3"])
def test_it_is_a_version_with_all_its_evidence(
    version: str, summaries: dict[str, Summary], data: Dataset
) -> None:
    summary = summaries[version]
    run = run_of(summary)
    assert (summary.model_version, summary.champion) == (version, False)
    assert (summary.noun, summary.positive) == ("row", "default")
    assert run.info.status == "FINISHED"
    assert run.data.tags["dataset.sha256"] == data.sha256
    assert run.data.tags["architecture"] == summary.architecture
    assert run.data.tags["defence"] == "unknown"
    assert "train/seconds" not in run.data.metrics
    for eps in ("0.02", "0.3"):
        chain = [
            run.data.metrics[f"bounds/certified_accuracy/eps_{eps}"],
            run.data.metrics[f"pgd/robust_accuracy/eps_{eps}"],
            run.data.metrics[f"fgsm/robust_accuracy/eps_{eps}"],
            run.data.metrics["clean_accuracy"],
        ]
        assert chain == sorted(chain)
    assert {
        "config.yaml",
        "data_card.md",
        "tables/epsilon_grid.csv",
        "tables/verification.csv",
        "tables/critical_radius.csv",
        "figures/robustness_curve.png",
        "figures/adversarial_examples.png",
    } <= artifacts(summary.run_id)


def test_one_network_in_two_files_has_one_set_of_numbers(
    summaries: dict[str, Summary], data: Dataset
) -> None:
    keras, onnx = summaries["2"], summaries["3"]
    labels = load(Path("bank.keras")).runtime.logits(data.test_inputs).argmax(axis=1)
    assert keras.clean_accuracy == (labels == data.test_labels).mean()
    assert onnx.clean_accuracy == keras.clean_accuracy
    first, second = (pd.DataFrame(each.epsilon_grid) for each in (keras, onnx))
    pd.testing.assert_frame_equal(first, second, atol=1 / 80)  # rounding may tip a row
    counts = ("robust", "falsified", "certified_recall")
    for one, other in zip(keras.verification, onnx.verification, strict=True):
        assert [one[name] for name in counts] == [other[name] for name in counts]
    assert keras.median_radius == pytest.approx(onnx.median_radius, abs=0.02)


def test_counterexamples_are_valid_rows_told_in_words(
    summaries: dict[str, Summary], data: Dataset
) -> None:
    runtime, found = load(Path("bank.onnx")).runtime, 0
    for path in Path(summaries["3"].folder).glob("counterexamples/sample_*_eps_*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            row, before = arrays["image"], arrays["clean"]
            label, predicted, epsilon = (arrays[n] for n in ("label", "predicted", "epsilon"))
            names, changes = arrays["classes"].tolist(), arrays["changes"].tolist()
        assert data.domain.contains(row[None])[0]
        assert runtime.logits(row[None]).argmax() == predicted != label
        assert data.perturbation.distance(before.astype(float), row[None].astype(float)) <= epsilon
        assert names == [data.class_names[label], data.class_names[predicted]]
        assert {text.split()[0] for text in changes} <= {"amount", "months"}
        assert len(changes) >= 1
        found += 1
    assert found >= 2


def test_mlflow_serves_what_the_file_says(summaries: dict[str, Summary], data: Dataset) -> None:
    for version in ("2", "3"):
        uri = f"models:/{MODEL}/{version}"
        info = mlflow.models.get_model_info(uri)
        assert info.signature is not None
        assert info.saved_input_example_info is not None
        served = mlflow.pyfunc.load_model(uri).predict(data.test_inputs)
        if version == "3":
            served = served["probabilities"]
        np.testing.assert_allclose(np.sum(served, axis=1), 1, atol=1e-5)  # probabilities
        accuracy = (np.asarray(served).argmax(axis=1) == data.test_labels).mean()
        assert accuracy == summaries[version].clean_accuracy


def test_requirements_are_metrics_tables_and_words(
    summaries: dict[str, Summary], data: Dataset
) -> None:
    summary, folder = summaries["2"], Path(summaries["2"].folder)
    run = run_of(summary)
    table = pd.read_csv(folder / "tables/properties.csv", keep_default_na=False)
    assert len(table) == 3 * 4
    names = ("monotone/age", "monotone/months", "fair/job")
    assert tuple(row["requirement"] for row in summary.properties) == names
    for row in summary.properties:
        certified = run.data.metrics[f"properties/{row['requirement']}/certified/eps_0.02"]
        broken = run.data.metrics[f"properties/{row['requirement']}/falsified/eps_0.02"]
        own = table[table["requirement"] == row["requirement"]]["verdict"]
        assert certified == row["certified"] == (own == "robust").mean()
        assert broken == row["falsified"] == (own == "falsified").mean()
        assert certified + broken + row["open"] / 4 == 1
    note = run.data.tags["mlflow.note.content"]
    told = [row["counterexample"] for row in summary.properties if row["counterexample"]]
    assert told  # months raises the risk of these data, and jobs count
    for text in told:
        assert text in note
        assert "→" in text
    assert "Required of features, around 4 sampled points." in note


def test_pairs_break_the_requirement_again(summaries: dict[str, Summary], data: Dataset) -> None:
    runtime, found = load(Path("bank.keras")).runtime, 0
    columns = data.domain.columns
    for path in Path(summaries["2"].folder).glob("counterexamples/*_*_sample_*.npz"):
        kind, feature = path.name.split("_")[:2]
        with np.load(path, allow_pickle=False) as arrays:
            pair = np.stack([arrays["first"], arrays["second"]])
        logits = np.stack([runtime.logits(each[None])[0] for each in pair])
        differing = np.flatnonzero(pair[0] != pair[1])
        assert set(differing) <= set(range(columns[feature].start, columns[feature].stop))
        assert data.domain.contains(pair).all()
        if kind == "fair":
            assert logits[0].argmax() != logits[1].argmax()
        else:
            assert pair[0, columns[feature]] < pair[1, columns[feature]]
            scores = (logits[:, 1] - logits[:, 0]).astype(float)
            assert scores[1] - scores[0] <= -TOLERANCE / 2
        found += 1
    assert found >= 1


def test_versions_are_compared_whoever_trained_them(summaries: dict[str, Summary]) -> None:
    (compared,) = comparison.compare(comparison.collect([], "certiflow"))
    rows = {row.version: row for row in compared.rows}
    assert rows.keys() == {1, 2, 3}
    assert rows[3].architecture == "bank-onnx"
    assert "train_seconds" in rows[1].costs
    assert "train_seconds" not in rows[2].costs
    assert rows[2].costs["parameters"] > 0
    difference = rows[2].differences["clean_accuracy"]
    assert difference.value == pytest.approx(
        summaries["2"].clean_accuracy - summaries["1"].clean_accuracy
    )
    assert difference.points == 80


def test_a_retraining_does_not_take_it_for_its_own(
    summaries: dict[str, Summary], data: Dataset, decision: Decision
) -> None:
    """It was judged, with the settings that are asked: but these did not make it."""
    ref = DatasetRef(
        name="loans",
        settings=DataSettings(dataset="loans.yaml"),
        sha256=data.sha256,
        test_size=len(data.test_labels),
    )
    assert decision.version == 3
    assert check_data.fn(ref, settings()).judged == 1  # and not 3
    assert check_data.fn(ref, settings(REQUIRED)).judged is None


@pytest.fixture(scope="module")
def decision(summaries: dict[str, Summary]) -> Decision:
    return promote_flow("3")


def test_the_gate_judges_it(decision: Decision, summaries: dict[str, Summary]) -> None:
    assert decision.against == 1
    assert decision.decision in {"promoted", "refused"}
    assert decision.numbers["points"] == 20
    assert decision.numbers["clean_accuracy"] == pytest.approx(summaries["3"].clean_accuracy)
    assert RegisteredModel(MODEL).decision(3)["promotion.decision"] == decision.decision


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_tells_rows_in_words(
    width: int, decision: Decision, summaries: dict[str, Summary], tmp_path: Path
) -> None:
    written = page.write(comparison.collect(["1", "2", "3"], ""), path=tmp_path / "page.html")
    text = written.path.read_text()
    assert "Hardest points" in text
    assert "Test row" in text
    assert "Test image" not in text
    assert "every image" not in text
    assert "every valid row" in text
    (section,) = re.findall(r"<h2>Required of features</h2>.*?</table>", text, re.DOTALL)
    for row in summaries["2"].properties:
        assert row["requirement"] in section
        assert html.escape(row["counterexample"]) in section
    assert "default at ε 0." in text or "paid at ε 0." in text
    assert text.count("<li>months ") + text.count("<li>amount ") >= 2
    rendered = render(written.path, width, tmp_path)
    assert rendered.content_width <= width
    assert (rendered.console, rendered.images) == ([], 0)


def test_a_retraining_on_drifted_rows_names_the_feature(decision: Decision, project: Path) -> None:
    """The last of this file: it changes the table."""
    rows = pd.read_csv("loans.csv")
    rows["amount"] = (1500 + 0.4 * rows["amount"]).round(2)
    rows.to_csv("loans.csv", index=False)
    load_checked.cache_clear()  # a served run is a process of its own
    found = retrain_flow(settings())
    assert found.check.changed
    assert found.check.drift is not None
    assert (found.check.drift.word, found.check.drift.feature) == ("major", "amount")
    assert "most amount" in found.check.sentence
    assert found.decision is not None
    assert found.decision.version == 4
    assert found.page is not None
    assert Path(found.page).is_file()
