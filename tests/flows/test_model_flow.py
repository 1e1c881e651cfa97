"""Questions about a model that exists: what MLflow and the folder hold afterwards."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tasks.core.data.datasets import Dataset
from tasks.core.models.loading import load
from tasks.core.models.runtimes import Classifier
from tests.command import certiflow, clean_environment, error_of, interpreted, refusal, started
from tests.flow_project import flow_project
from tests.flows.actions.test_verify_command import stored
from tests.loans import loans, trained, write_loans
from tests.property_files import saved_distance

SECONDS = 60.0
FAST = ["--timeout", "5", "--workers", "1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, classifier: Classifier) -> Path:
    """A folder with a model of the digits, and Prefect's files in a place of their own."""
    folder = tmp_path_factory.mktemp("project")
    classifier.model.save(folder / "digits.keras")
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> dict[str, str]:
    return clean_environment(tmp_path_factory.mktemp("prefect"), PREFECT_API_URL=prefect_api)


def test_local_robustness_of_a_file_is_logged(project: Path, environment: dict[str, str]) -> None:
    arguments = ["verify", "--model", "digits.keras", "--data", "digits", "--samples", "6"]
    result = certiflow(
        project,
        environment,
        *arguments,
        "--epsilon",
        "0.02",
        "--epsilon",
        "0.1",
        *FAST,
        "--witness-share",
        "1",
    )
    assert result.returncode == 0, result.stderr
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("certiflow").experiment_id])
    assert run.info.status == "FINISHED"
    certified = [
        run.data.metrics[f"verification/certified_accuracy/eps_{e}"] for e in ("0.02", "0.1")
    ]
    assert 1 >= certified[0] >= certified[1] >= 0
    table = pd.read_csv(next(project.glob("runs/verify-*/tables/verification.csv")))
    assert len(table) == 12
    proofs = (table["verdict"] == "robust").sum()
    said = {
        word: run.data.metrics[f"verification/witness/{word}"]
        for word in ("confirmed", "undecided", "seconds")
    }
    assert said["confirmed"] + said["undecided"] == proofs > 0
    assert said["seconds"] == pytest.approx(table["witness_seconds"].sum())
    assert said["seconds"] > 0
    assert run.data.params["verification.witness_seconds"] == "5.0"
    lines = [line for line in result.stderr.splitlines() if line.startswith("witness")]
    assert f"{proofs}/{proofs}" in lines[-1]
    assert f"Marabou on {proofs} of the proofs: {said['confirmed']:.0f} confirmed" in result.stdout


def test_radius_brackets_are_tables_figures_and_metrics(
    project: Path, environment: dict[str, str], classifier: Classifier, digits: Dataset
) -> None:
    arguments = ["radius", "--model", "digits.keras", "--data", "digits", "--samples", "4"]
    result = interpreted(project, environment, *arguments, "--tolerance", "0.01", *FAST)
    assert result.returncode == 0, result.stderr
    (done,) = (line for line in result.stderr.splitlines() if line.startswith("radius "))
    counts = re.findall(r"(\d+) (complete|open)", done)
    assert sum(int(count) for count, _ in counts) == 4, done
    folder = next(project.glob("runs/radius-*"))
    table = pd.read_csv(folder / "tables" / "critical_radius.csv")
    wrong = table["falsified"] == 0  # misclassified points
    assert not wrong.all()
    assert (table["proved"][wrong] == 0).all()
    assert (table["proved"] < table["falsified"])[~wrong].all()
    found = table[~wrong & table["complete"] & np.isfinite(table["falsified"])]
    assert len(found)
    assert (found["falsified"] - found["proved"] <= 0.01).all()
    assert (folder / "figures" / "critical_radius.png").stat().st_size > 10_000
    for row in found.itertuples():
        path = folder / "counterexamples" / f"sample_{row.sample_index}.npz"
        with np.load(path, allow_pickle=False) as arrays:
            image, epsilon = arrays["image"], float(arrays["epsilon"])
        distance = np.abs(image - digits.test_inputs[row.sample_index].astype(float)).max()
        assert row.proved < distance <= epsilon == row.falsified
        assert classifier.logits(image[None]).argmax() != row.label


@pytest.mark.parametrize("command", ["radius", "global-robustness"])
def test_a_cluster_is_where_it_is_solved(
    command: str, project: Path, environment: dict[str, str]
) -> None:
    arguments = [command, "--model", "digits.keras", "--data", "digits", "--fresh"]
    result = certiflow(project, environment, *arguments, "--cluster", "nonsense", *FAST)
    assert result.returncode == 1
    assert "'nonsense' is not the address of a Dask scheduler" in error_of(result)


def test_global_robustness_bounds_what_sampling_finds(
    project: Path, environment: dict[str, str], classifier: Classifier, digits: Dataset
) -> None:
    arguments = ["global-robustness", "--model", "digits.keras", "--data", "digits"]
    small = ["--delta", "0.01", "--domain-radius", "0.02"]
    result = certiflow(project, environment, *arguments, *small, *FAST)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(next(project.glob("runs/global-*/tables/global_robustness.csv")))
    assert table["label"].tolist() == list(range(10))
    mean = digits.train_inputs.mean(axis=0)
    generator = np.random.default_rng(0)
    first = np.clip(mean + generator.uniform(-0.02, 0.02, (500, 8, 8)), 0, 1).astype(np.float32)
    second = np.clip(first + generator.choice([-0.0099, 0.0099], first.shape), mean - 0.02, None)
    second = np.clip(second, 0, np.minimum(mean + 0.02, 1)).astype(np.float32)
    change = np.abs(classifier.logits(first) - classifier.logits(second)).max(axis=0)
    assert (change < table["epsilon_proved"]).all()


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--epsilon", "0.1", "--epsilon", "0.15", "--epsilon", "0.2"],
        ["radius", "--tolerance", "0.005"],
    ],
    ids=["verify", "radius"],
)
def test_killed_run_goes_on_where_it_was(
    tmp_path: Path, environment: dict[str, str], classifier: Classifier, arguments: list[str]
) -> None:
    classifier.model.save(tmp_path / "digits.keras")
    question = [*arguments, "--model", "digits.keras", "--data", "digits", "--samples", "24"]
    with started(tmp_path, environment, *question, *FAST) as process:
        while len(stored(tmp_path)) < 5 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(SECONDS) == -signal.SIGKILL
    time.sleep(1)  # a worker's last answer has no one to go to
    before = stored(tmp_path)
    assert len(before) >= 5
    result = certiflow(tmp_path, environment, *question, *FAST)
    assert result.returncode == 0, result.stderr
    after = stored(tmp_path)
    assert len(after) > len(before)
    assert {key: after[key] for key in before} == before


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of loans, its schema and a model of it."""
    folder = tmp_path_factory.mktemp("bank")
    write_loans(folder)
    trained(loans(folder), epochs=10).save(folder / "bank.keras")
    return folder


def test_global_robustness_of_a_table_is_told_in_its_words(
    bank: Path, environment: dict[str, str]
) -> None:
    asked = ["global-robustness", "--model", "bank.keras", "--data", "loans.yaml"]
    reach = ["--delta", "0.05", "--domain-radius", "0.2"]
    result = certiflow(bank, environment, *asked, *reach, *FAST)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(next(bank.glob("runs/global-*/tables/global_robustness.csv")))
    assert table["class"].tolist() == ["paid", "default"]
    assert (table["largest_difference"] < table["epsilon_proved"]).all()
    greatest = table.loc[table["largest_difference"].idxmax()]
    assert (
        f"the score of {greatest['class']} by {greatest['largest_difference']:.4f}:"
        in result.stdout
    )
    assert re.search(r"greatest change: .*amount [\d,.]+ → [\d,.]+", result.stdout)
    data, runtime = loans(bank), load(bank / "bank.keras").runtime
    scales = (data.train_inputs.max(axis=0) - data.train_inputs.min(axis=0)).astype(float)
    for row in table.itertuples():
        path = next(bank.glob(f"runs/global-*/counterexamples/global_class_{row.label}.npz"))
        with np.load(path, allow_pickle=False) as arrays:
            both = np.stack([arrays["first"], arrays["second"]])
        assert data.domain.contains(both).all()
        change = np.abs(both[1] - both[0])
        assert (change[:2] <= 0.05 * scales[:2]).all()  # amount and months
        assert not change[2:].any()  # age and job are no one's to change
        assert tuple(row.pair.split("; ")) == data.domain.moves(*both)
        points = both.astype(np.float32)  # one at a time: the sums of a batch have other orders
        logits = np.concatenate([runtime.logits(point[None]) for point in points]).astype(float)
        assert np.abs(logits[1] - logits[0])[row.label] == pytest.approx(row.largest_difference)


def test_scales_of_tables_are_an_option(bank: Path, environment: dict[str, str]) -> None:
    """An amount moves by one euro at most, and no other number by a whole one."""
    asked = ["radius", "--model", "bank.keras", "--data", "loans.yaml", "--samples", "4"]
    result = certiflow(bank, environment, *asked, "--scale", "absolute", *FAST)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(next(bank.glob("runs/radius-*/tables/critical_radius.csv")))
    right = table[table["falsified"] > 0]
    assert len(right) > 0
    assert (right["proved"] == 0.3).all()


def test_rows_that_cannot_differ_are_said_before_a_run(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the months may change, which are whole."""
    schema = (bank / "loans.yaml").read_text()
    schema = schema.replace("name: amount\n", "name: amount\n  mutable: false\n")
    (bank / "whole.yaml").write_text(schema)
    monkeypatch.chdir(bank)
    before = list(bank.glob("runs/*"))
    asked = ["global-robustness", "--model", "bank.keras", "--data", "whole.yaml"]
    told = refusal(monkeypatch, *asked, "--delta", "0.9", "--scale", "absolute")
    assert "no two rows of the domain differ: choose a greater delta" in told
    assert list(bank.glob("runs/*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["radius", "--model", "digits.keras", "--data", "digits", "--category-changes", "1"],
            "category_changes is 1, but digits is images, whose pixels move alike",
        ),
        (
            ["global-robustness", "--model", "digits.keras", "--data", "digits", "--scale", "std"],
            "scale is 'std' and category_changes is 0, but digits is images",
        ),
        (["radius", "--model", "none.keras", "--data", "digits"], "none.keras"),
        (
            ["radius", "--model", "digits.keras", "--data", "digits", "--max-epsilon", "2"],
            "max_eps",
        ),
        (["radius", "--model", "broken.onnx", "--data", "digits"], "broken.onnx"),
        (["radius", "--model", "broken.keras", "--data", "digits"], "broken.keras: Keras cannot"),
        (["radius", "--model", "broken.txt", "--data", "digits"], "unknown kind of model '.txt'"),
        (
            ["radius", "--model", "certiflow-digits/1", "--data", "digits"],
            "certiflow-digits/1: no such file; a version in MLflow is models:/certiflow-digits/1",
        ),
        (["radius", "--model", "digits.keras", "--data", "mnist"], "64 inputs and 10 outputs: mni"),
        (["radius", "--model", "pair.onnx", "--data", "digits"], "2 inputs and 2 outputs: digits"),
        (["radius", "--model", "digits.keras", "--data", "gone.npz"], "gone.npz: no such file"),
        (["radius", "--model", "digits.keras", "--data", "broken.npz"], "broken.npz: cannot be"),
        (["radius", "--model", "digits.keras", "--data", "cifar"], "data.dataset is 'cifar'"),
        (
            ["radius", "--model", "digits.keras", "--data", "digits", "--samples", "361"],
            "--samples is 361: expected at most 360",
        ),
        (
            ["verify", "--model", "digits.keras", "--data", "digits", "--epsilon", "-1"],
            "verification.epsilons.0 is -1",
        ),
        (
            ["global-robustness", "--model", "models:/certiflow-digits/9", "--data", "digits"],
            "models:/certiflow-digits/9: MLflow at",
        ),
    ],
)
def test_what_a_user_can_cause_is_one_line_and_leaves_no_run(
    classifier: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    classifier.model.save(tmp_path / "digits.keras")
    saved_distance(tmp_path).rename(tmp_path / "pair.onnx")
    for name in ("broken.onnx", "broken.keras", "broken.npz", "broken.txt"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    with flow_project(tmp_path):
        assert said in refusal(monkeypatch, *arguments)
    assert not list(tmp_path.glob("runs/*"))


def test_all_test_points_give_the_exact_accuracy(
    project: Path, environment: dict[str, str]
) -> None:
    """One radius follows from the other, with one counterexample for both; some are solved."""
    arguments = ["verify", "--model", "digits.keras", "--data", "digits", "--samples", "all"]
    radii = ("0.02", "0.05", "0.06")
    asked = [word for radius in radii for word in ("--epsilon", radius)]
    result = interpreted(project, environment, *arguments, *asked, *FAST, "--witness-share", "0")
    assert result.returncode == 0, result.stderr
    folder = max(project.glob("runs/verify-*"), key=lambda path: path.stat().st_mtime)
    table = pd.read_csv(folder / "tables" / "verification.csv", keep_default_na=False)
    assert len(table) == 3 * 360
    follows = table["reason"].str.fullmatch(r"(proved|broken) at 0\.0\d")
    assert follows.sum() >= 200
    broken = (table["verdict"] == "falsified") & (table["decided_by"] != "clean") & ~follows
    found = list((folder / "counterexamples").glob("sample_*_eps_*.npz"))
    assert len(found) == broken.sum() > 0
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (run, *_) = client.search_runs([client.get_experiment_by_name("certiflow").experiment_id])
    for radius in radii:
        rows = table[table["epsilon"] == float(radius)]
        exact = run.data.metrics[f"verification/exact_accuracy/eps_{radius}"]
        assert exact == (rows["verdict"] == "robust").mean()
        assert exact <= run.data.metrics[f"verification/exact_accuracy_high/eps_{radius}"]
    logged = {each.path for each in client.list_artifacts(run.info.run_id, "counterexamples")}
    assert {Path(path).name for path in logged} == {
        path.name for path in (folder / "counterexamples").iterdir()
    }
    assert "Verification, all 360 test points" in result.stdout
