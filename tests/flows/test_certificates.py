"""Certificates in runs: logged, checked by the command, carried over to the next version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from flows.robustness import robustness_flow
from tasks import certificates
from tasks.core.models import loading
from tasks.core.sources.catalogue import load
from tasks.core.verification.balls import Sample
from tasks.presentation.records import Summary
from tests.command import invoked, refusal
from tests.flow_project import flow_project, smoke

ASKED = (
    "training.epochs=8",
    "verification.samples=10",
    "verification.epsilons=[0.02,0.1]",
    "verification.certificates=true",
    "radius=null",
)


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Path]:
    with flow_project(tmp_path_factory.mktemp("project")) as folder:
        yield folder


@pytest.fixture(scope="module")
def first(project: Path) -> Summary:
    return robustness_flow(smoke(*ASKED))


@pytest.fixture(scope="module")
def second(first: Summary) -> Summary:
    """Trained a little longer on the same data."""
    return robustness_flow(smoke(*ASKED, "training.epochs=9"))


def rows_of(summary: Summary, project: Path) -> pd.DataFrame:
    return pd.read_csv(project / "runs" / summary.run_name / "tables/verification.csv")


def metrics_of(summary: Summary) -> dict[str, float]:
    return dict(MlflowClient().get_run(summary.run_id).data.metrics)


def test_every_proof_is_certified_and_the_checker_says_so_again(
    first: Summary, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(first, project)
    proofs = rows[rows["verdict"] == "robust"]
    assert len(proofs) > 5
    assert set(proofs["certificate"]) == {"checked"}
    assert rows.loc[rows["verdict"] != "robust", "certificate"].isna().all()
    for epsilon, part in proofs.groupby("epsilon"):
        path = project / "runs" / first.run_name / f"certificates/eps_{epsilon}.npz"
        result = invoked(monkeypatch, "check", str(path))
        assert result.exit_code == 0, result.exception
        assert f"{len(part)} of {len(part)} proved in float64" in result.output
        assert metrics_of(first)[f"verification/certificates/eps_{epsilon}"] == len(part)


def test_proofs_carry_over_to_the_next_version(second: Summary, project: Path) -> None:
    rows = rows_of(second, project)
    carried = rows[rows["reason"] == "by the certificate of certiflow-digits/1"]
    assert len(carried) == metrics_of(second)["verification/certificates/carried"] > 0
    assert set(carried["verdict"]) == {"robust"}
    assert set(rows.loc[rows["verdict"] == "robust", "certificate"]) == {"checked"}


def test_proofs_of_logits_are_not_carried_over_to_probabilities(
    first: Summary, project: Path
) -> None:
    """The checker knows nothing of a softmax, whose probabilities may tie in float32."""
    folder = project / "runs" / first.run_name
    loaded, data = loading.load(folder / "model.keras"), load("digits", project / "cache")
    rows = pd.unique(rows_of(first, project)["sample_index"])
    sample = Sample(rows, data.test_inputs[rows], data.test_labels[rows], data.perturbation)
    log: Any = SimpleNamespace(metrics=lambda numbers: None)
    for ending, is_carried in (("logits", True), ("softmax", False), ("sigmoid", False)):
        found = certificates.carried_over(
            folder / "certificates" / "model.onnx",
            replace(loaded, ending=ending),
            "digits",
            sample,
            (0.02, 0.1),
            log,
        )
        assert bool(found.results) == bool(found.proofs) == is_carried


def test_another_network_is_refused(
    first: Summary, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "runs" / first.run_name
    certificate = folder / "certificates/eps_0.02.npz"
    assert "no such file; name it by --model" in refusal(
        monkeypatch, "check", str(certificate), "--model", "none.onnx"
    )
    other = folder / "other.onnx"
    other.write_bytes((folder / "certificates/model.onnx").read_bytes() + b"\n")
    message = refusal(monkeypatch, "check", str(certificate), "--model", str(other))
    assert "other.onnx: expected the file with SHA-256" in message
    message = refusal(monkeypatch, "check", str(certificate), "--only", "nobody")
    assert "no question of this name; it has" in message
    message = refusal(monkeypatch, "check", str(folder / "config.yaml"))
    assert "cannot be read as a certificate" in message


def test_certify_asks_for_files_that_it_reads(
    first: Summary, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, prop = project / "runs" / first.run_name, project / "p.vnnlib"
    model = folder / "certificates/model.onnx"
    given = ["certify", "--model", str(model), "--property", str(prop)]
    assert "p.vnnlib: no such file" in refusal(monkeypatch, *given)
    bounds = "".join(f"(assert (>= X_{i} 0.5))\n(assert (<= X_{i} 0.5001))\n" for i in range(64))
    prop.write_text(f"{bounds}(assert (<= Y_0 -1000.0))")
    result = invoked(monkeypatch, *given)
    assert result.exit_code == 0, result.exception
    assert result.stdout == "unsat\n"
    certificate = prop.with_suffix(".certificate.npz")
    result = invoked(monkeypatch, "check", str(certificate), "--model", str(model), "--exact")
    assert result.exit_code == 0, result.exception
    assert "1 of 1 proved in rational arithmetic" in result.stdout
    prop.write_text(f"{bounds}(assert (<= Y_0 1000.0))")
    assert "nothing was proved" in refusal(monkeypatch, *given, "--timeout", "1")
    given[2] = str(folder / "model.keras")
    assert "expected an ONNX file, got '.keras'" in refusal(monkeypatch, *given)
