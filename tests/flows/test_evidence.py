"""Evidence of a version of a whole run: written, audited, and found out where it was changed."""

from __future__ import annotations

import contextlib
import io
import json
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mlflow import MlflowClient

from flows.promotion import promote_flow
from flows.robustness import robustness_flow
from tasks.core.bundle import archive, keys
from tasks.core.bundle.envelope import Envelope
from tasks.core.bundle.findings import Findings
from tasks.core.bundle.statement import ENVELOPE, KEY, File, Statement
from tasks.core.errors import CertiflowError
from tasks.core.files import sha256_of
from tasks.evidence import audit as auditing
from tasks.evidence import certificates
from tasks.evidence.audit import Asked, Audit
from tasks.presentation.records import Summary
from tests.command import invoked, refusal
from tests.core.bundle.cyclonedx_schema import problems
from tests.flow_project import flow_project, smoke
from tests.flows.forgeries import (
    with_card,
    with_certificate_of_smaller_balls,
    with_counterexample,
    with_damaged_certificate,
    with_doubled_rows,
    with_metric,
    with_model,
    with_noise,
    with_page,
    with_points,
    with_points_of_choice,
    with_radii,
    with_sample,
    with_settings,
    with_smaller_moves,
    with_table,
    with_weaker_table,
    without_certificate,
    without_counterexample,
)
from tests.marabou_program import asked as asked_of
from tests.marabou_program import program

Files = dict[str, bytes]
QUICK = Asked(quick=True)
ASKED = (
    "training.epochs=8",
    "verification.samples=10",
    "verification.epsilons=[0.02,0.2]",
    "verification.certificates=true",
)


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Path]:
    with flow_project(tmp_path_factory.mktemp("project")) as folder:
        yield folder


@pytest.fixture(scope="module")
def summary(project: Path) -> Summary:
    return robustness_flow(smoke(*ASKED))


@pytest.fixture(scope="module")
def bundle(summary: Summary, project: Path) -> Path:
    """The evidence of the run's version, as the command writes it."""
    with pytest.MonkeyPatch.context() as patch:
        result = invoked(patch, "evidence", "1", "-o", "e.zip", "--by", "somebody")
    assert result.exit_code == 0, result.exception
    assert "evidence.key.pem" in result.stderr
    return project / "e.zip"


@pytest.fixture(scope="module")
def files(bundle: Path) -> Files:
    return archive.read(bundle)


def statement_of(files: Files) -> Statement:
    return Statement.parsed(Envelope.parsed(files[ENVELOPE], ENVELOPE).payload)


def forged(files: Files, folder: Path, **predicate: Any) -> Path:
    """The files signed by somebody else, all digests as they are now."""
    key, statement = Ed25519PrivateKey.generate(), statement_of(files)
    content = {name: each for name, each in files.items() if name != ENVELOPE}
    content[KEY] = keys.pem_of(key.public_key())
    stated = {name: File.of(each) for name, each in content.items()}
    models = tuple(subject.name for subject in statement.subject)
    changed = statement.predicate.model_copy(update={"files": stated, **predicate})
    text = Statement.of(models, changed).text
    archive.write(folder / "f.zip", content | {ENVELOPE: Envelope.signed(text, key).text})
    return folder / "f.zip"


def wrong(found: Audit) -> set[str]:
    return {finding.kind for finding in found.checked if not finding.same}


def test_it_holds_what_an_auditor_asks_for(files: Files, summary: Summary) -> None:
    assert files.keys() >= {
        "README.md",
        "clauses.json",
        "clauses.md",
        "config.yaml",
        "data.json",
        "data_card.md",
        "gate.json",
        "ml-bom.cdx.json",
        "model/as_trained.keras",
        "model/model.onnx",
        "model_card.md",
        "public_key.pem",
        "report.html",
        "requirements.lock",
        "run.json",
        "sbom.cdx.json",
        "statement.dsse.json",
        "tables/epsilon_grid.csv",
        "tables/verification.csv",
        "verdicts.parquet",
    }
    for folder in ("counterexamples", "certificates"):
        assert any(name.startswith(f"{folder}/") for name in files)
    assert json.loads(files["gate.json"])["promotion.decision"] == "promoted"
    for name in ("sbom.cdx.json", "ml-bom.cdx.json"):
        assert problems(files[name]) == []


def test_claims_are_the_numbers_of_the_run(files: Files, summary: Summary) -> None:
    metrics = MlflowClient().get_run(summary.run_id).data.metrics
    predicate = statement_of(files).predicate
    found = {claim.name: claim.value for claim in predicate.claims}
    assert found["clean_accuracy", None] == summary.clean_accuracy
    assert found["pgd/robust_accuracy", 0.1] == metrics["pgd/robust_accuracy/eps_0.1"]
    name = "verification/certified_accuracy"
    assert found[name, 0.02] == metrics[f"{name}/eps_0.02"]
    assert {claim.who for claim in predicate.claims} == {"somebody"}
    assert predicate.absent.keys() == {"tables/properties.csv"}


def test_nothing_in_it_names_the_machine(files: Files, project: Path) -> None:
    for name, content in files.items():
        assert str(project).encode() not in content, name


def test_the_key_is_the_owners_alone(bundle: Path, project: Path) -> None:
    assert stat.S_IMODE((project / "evidence.key.pem").stat().st_mode) == 0o600


def test_the_audit_passes_and_says_what_it_did_not_check(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("audit", "e.zip", "--key", "evidence.pub.pem", "--json", "a.json")
    result = invoked(monkeypatch, *asked)
    assert result.exit_code == 0, result.exception
    found = json.loads(Path("a.json").read_text())
    assert found["passed"]
    assert found["signer_known"]
    kinds = {each["kind"] for each in found["checked"]}
    assert kinds == {
        "signature",
        "files",
        "claim",
        "MLflow",
        "model card",
        "report page",
        "table",
        "model",
        "counterexamples",
        "certificates",
        "again",
    }
    again = {each["what"] for each in found["checked"] if each["kind"] == "again"}
    assert {"clean_accuracy", "pgd/robust_accuracy/eps_0.1", "balanced_accuracy"} <= again
    assert "not checked: report.html" in result.stdout
    rows = {row["epsilon"]: row for row in found["certificates"]}
    assert rows[0.02]["robust"] == rows[0.02]["certified"] == rows[0.02]["deployed"] > 0


def test_another_verifier_can_be_asked(
    bundle: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every decided ball, and of each answer one by Marabou's own program."""
    asked = ("audit", "e.zip", "--quick", "--instances", "balls")
    assert invoked(monkeypatch, *asked).exit_code == 0
    table = pd.read_csv(io.BytesIO(files["tables/verification.csv"]))
    decided = table["verdict"].isin(["robust", "falsified"]) & (table["decided_by"] != "clean")
    lines = [line.split(",") for line in Path("balls/expected.csv").read_text().splitlines()]
    assert len(lines) == decided.sum()
    listed = Path("balls/instances.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in listed] == [name for name, _ in lines]
    command = program()
    if command is None:
        pytest.skip("needs Marabou's program, which maraboupy's wheel puts beside Python")
    for answer in ("sat", "unsat"):
        name = next(name for name, expected in lines if expected == answer)
        assert asked_of(command, Path("balls/onnx/model.onnx"), Path("balls", name), 60) == answer


def test_what_mlflow_holds_is_audited_as_well(
    bundle: Path, summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in ("certiflow-digits@champion", summary.run_id):
        result = invoked(monkeypatch, "audit", words, "--quick")
        assert result.exit_code == 0, result.exception
        assert "certiflow-digits/1" in result.stdout


def test_evidence_is_the_same_but_for_its_date(
    files: Files, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("evidence", "certiflow-digits/1", "-o", "again.zip", "--by", "somebody")
    assert invoked(monkeypatch, *asked).exit_code == 0
    again = archive.read(Path("again.zip"))
    differing = {name for name in files.keys() | again.keys() if files[name] != again[name]}
    assert differing <= {ENVELOPE, "report.html"}  # which say when they were made


def test_a_changed_byte_anywhere_is_found(bundle: Path, files: Files, tmp_path: Path) -> None:
    content, changed = bundle.read_bytes(), tmp_path / "changed.zip"
    generator = np.random.default_rng(0)

    def said(place: int) -> str:
        flip = int(generator.integers(1, 256))
        changed.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        with pytest.raises(CertiflowError) as caught:
            auditing.of_archive(changed, None, QUICK)
        return str(caught.value)

    for place in generator.integers(0, len(content), 200):
        said(int(place))
    for name, each in files.items():
        assert name in said(content.index(each))


def test_every_file_that_is_another_is_named(files: Files) -> None:
    statement = statement_of(files)
    assert statement.differences(files) == {}
    for name in files.keys() - {ENVELOPE}:
        assert set(statement.differences(files | {name: files[name] + b" "})) == {name}


def test_the_signature_of_another_is_refused(
    bundle: Path, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = forged(files, tmp_path)
    assert wrong(auditing.of_archive(path, None, QUICK)) == set()  # it is whole
    result = invoked(monkeypatch, "audit", str(path), "--quick", "--key", "evidence.pub.pem")
    assert result.exit_code == 1
    assert "checks differ: signature" in str(result.exception)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (with_table, {"claim", "table"}),
        (with_weaker_table, {"claim", "MLflow", "table"}),
        (with_points, {"claim", "MLflow", "again"}),
        (with_metric, {"MLflow"}),
        (with_settings, {"MLflow"}),
        (with_card, {"model card"}),
        (with_page, {"report page"}),
        (with_counterexample, {"counterexamples"}),
        (without_counterexample, {"counterexamples"}),
        (with_model, {"model", "counterexamples", "again"}),
        (with_sample, {"table"}),
        (with_damaged_certificate, {"certificates"}),
        (without_certificate, {"certificates"}),
        (with_certificate_of_smaller_balls, {"certificates"}),
        (with_noise, {"table"}),
        (with_doubled_rows, {"table"}),
        (with_points_of_choice, {"table", "again"}),
        (with_radii, {"table"}),
        (with_smaller_moves, {"again"}),
    ],
)
def test_what_was_changed_and_signed_again_is_found(
    change: Callable[[Files], Files], kinds: set[str], files: Files, tmp_path: Path
) -> None:
    path = forged(files | change(files), tmp_path)
    assert wrong(auditing.of_archive(path, None, QUICK)) >= kinds


def test_a_claim_that_no_table_shows_is_found(files: Files, tmp_path: Path) -> None:
    claims = statement_of(files).predicate.claims
    more = [claim.model_copy(update={"value": 1.0}) for claim in claims]
    found = auditing.of_archive(forged(files, tmp_path, claims=tuple(more)), None, QUICK)
    assert {"claim", "model card"} <= wrong(found)


def test_a_claim_about_other_points_is_found(files: Files, tmp_path: Path) -> None:
    first, *others = statement_of(files).predicate.claims
    for change in ({"n": first.n + 1}, {"norm": "L2"}, {"threat_model": None}):
        claims = (first.model_copy(update=change), *others)
        found = auditing.of_archive(forged(files, tmp_path, claims=claims), None, QUICK)
        assert wrong(found) == {"claim"}


def test_words_of_strangers_are_a_line_of_text(files: Files, tmp_path: Path) -> None:
    path = forged(files, tmp_path, subject="\x1b]0;evil\x07 \n all is well")
    assert auditing.of_archive(path, None, QUICK).subject == "]0;evil all is well"


def test_proofs_without_certificates_are_told_as_not_checked(files: Files) -> None:
    table = pd.read_csv(io.BytesIO(files["tables/verification.csv"]))
    findings = Findings()
    rows = certificates.rows(table.drop(columns="certificate"), {}, findings)
    assert findings.checked == []
    assert [row.without for row in rows] == [row.robust for row in rows]
    assert "no certificates" in findings.unchecked[0].why


def test_data_that_cannot_be_had_are_told(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = json.loads(files["data.json"]) | {"source": "gone.npz"}
    path = forged(files | {"data.json": json.dumps(data).encode()}, tmp_path)
    found = auditing.of_archive(path, None, QUICK)
    assert found.passed
    assert any("gone.npz is not here" in each.why for each in found.unchecked)
    assert not any(each.kind == "again" for each in found.checked)


def by_hand(folder: Path) -> str:
    """What the code in the bundle's README prints in the unpacked bundle."""
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said):
        exec(compile(block, "README.md", "exec"), {})
    return said.getvalue()


def test_it_can_be_checked_by_hand(files: Files, tmp_path: Path) -> None:
    archive.unpack(files, tmp_path)
    assert by_hand(tmp_path) == "digests, shares and counterexamples are as stated\n"
    archive.unpack(with_counterexample(files) | with_table(files), tmp_path)
    said = by_hand(tmp_path)
    for words in ("another file than was signed", "keeps the label", "claimed"):
        assert words in said


def test_numbers_that_are_not_the_tables_are_not_signed(
    bundle: Path, summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name = MlflowClient(), "pgd/robust_accuracy/eps_0.1"
    before = client.get_run(summary.run_id).data.metrics[name]
    client.log_metric(summary.run_id, name, 0.99)
    try:
        said = refusal(monkeypatch, "evidence", "1", "-o", "wrong.zip")
    finally:
        client.log_metric(summary.run_id, name, before)
    assert f"MLflow says {name} is 0.99" in said
    assert not Path("wrong.zip").exists()


def test_a_promotion_demands_evidence_that_holds(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second version, refused while a metric is not what its tables say, and promoted after."""
    second = robustness_flow(smoke(*ASKED, "training.epochs=10", "promotion.audit=true"))
    client, name = MlflowClient(), "fgsm/robust_accuracy/eps_0.1"
    before = client.get_run(second.run_id).data.metrics[name]
    client.log_metric(second.run_id, name, 0.99)
    refused = promote_flow(f"certiflow-digits/{second.model_version}")
    assert refused.decision == "refused"
    assert f"its evidence does not hold: certiflow-digits/2: MLflow says {name}" in refused.reason
    client.log_metric(second.run_id, name, before)
    decision = promote_flow(f"certiflow-digits/{second.model_version}")
    assert decision.decision == "promoted"
    kept = Path(client.download_artifacts(second.run_id, "evidence.zip"))
    assert decision.evidence == sha256_of(kept.read_bytes())
    version = client.get_model_version("certiflow-digits", second.model_version)
    assert version.tags["promotion.evidence"] == decision.evidence
    assert decision.evidence in version.description
    found = auditing.of_archive(kept, Path("evidence.pub.pem"), QUICK)
    assert (found.passed, found.subject) == (True, "certiflow-digits/2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("audit", "none.zip"), "give the path of an archive"),
        (("audit", "certiflow-digits/9"), "no version 9"),
        (("audit", "certiflow-digits/1", "--key", "evidence.pub.pem"), "nobody signs"),
        (("evidence", "certiflow-digits/9", "-o", "x.zip"), "no version 9"),
        (("evidence", "1", "-o", "x.zip", "--key", "none.pem"), "give the path of a key"),
        (("audit", "e.zip", "--key", "evidence.key.pem"), "no public key"),
    ],
)
def test_what_a_user_can_cause_is_one_line(
    arguments: tuple[str, ...], said: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in refusal(monkeypatch, *arguments)
