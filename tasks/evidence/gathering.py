"""The evidence of a registered version, gathered from MLflow into the files of a bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tasks.certificates import FOLDER as CERTIFICATES
from tasks.certificates import NETWORK, write_network
from tasks.core.bundle import answers, archive, sbom
from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.envelope import Envelope
from tasks.core.bundle.keys import pem_of
from tasks.core.bundle.recount import POINTS, VERDICTS, Name, Number, Tables, named, numbers
from tasks.core.bundle.statement import (
    ENVELOPE,
    KEY,
    ONNX,
    Claim,
    File,
    Predicate,
    Statement,
    claims,
)
from tasks.core.errors import CertiflowError
from tasks.core.files import temporary_folder
from tasks.presentation import comparison, page
from tasks.presentation.data_card import CARD, of_data
from tasks.presentation.model_card import model_card
from tasks.settings import decimal
from tasks.tracking import RegisteredModel, RunRecord, Version, downloaded_model

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tasks.core.data.datasets import Dataset

AS_TRAINED = "model/as_trained"
README = Path(archive.__file__).with_name("by_hand.md")
LOCK = Path(__file__).parents[2] / "requirements.lock"
DATA, RUN, GATE, CARD_OF_MODEL = "data.json", "run.json", "gate.json", "model_card.md"
PARQUET, SBOM, ML_BOM = "verdicts.parquet", "sbom.cdx.json", "ml-bom.cdx.json"
CERTIFIED = f"{CERTIFICATES}/{NETWORK}"  # of a run: what its certificates speak of


@dataclass(frozen=True, eq=False)
class Gathered:
    """The files of a bundle, and the statement about them, which nobody has signed yet."""

    files: Mapping[str, bytes]
    statement: Statement

    def sealed(self, key: Ed25519PrivateKey) -> dict[str, bytes]:
        """All files of the bundle, signed."""
        pem = pem_of(key.public_key())
        predicate = self.statement.predicate
        stated = predicate.files | {KEY: File.of(pem)}
        signed = self.statement.model_copy(
            update={"predicate": predicate.model_copy(update={"files": stated})}
        )
        return {**self.files, KEY: pem, ENVELOPE: Envelope.signed(signed.text, key).text}


def gather(version: Version, run: RunRecord, data: Dataset, source: str, who: str) -> Gathered:
    """The evidence of a version, its run's numbers held against its tables.

    `source` is what `data.dataset` said, `who` stands for the claims.

    Raises:
        CertiflowError: the run holds no whole evidence; a number is not that of its tables; the
            model cannot be written as ONNX.
    """
    files = _artifacts(run)
    missing = [name for name in (POINTS, VERDICTS, "config.yaml") if name not in files]
    if missing:
        raise CertiflowError(
            f"{version}: its run {run.name} holds no {', '.join(missing)}: name a version of "
            "`certiflow run`, `evaluate` or `retrain`"
        )
    folder = temporary_folder("certiflow-evidence-")
    archive.unpack(files, folder)
    verdicts = pd.read_csv(folder / VERDICTS)
    described = DataDescription.of(
        data, source, tuple(sorted(int(index) for index in verdicts["sample_index"].unique()))
    )
    counts = numbers(Tables.of(folder, data.positive))
    values = {named(metric): value for metric, value in run.metrics.items()}
    _check(version, values, counts)
    claimed = claims(values, counts, described, _date(run.started), who)

    title, architecture = str(version), run.tags.get("architecture", "unknown")
    models = _models(version, files.pop(CERTIFIED, None))
    files |= models
    files[PARQUET] = _parquet(verdicts, folder)
    files[DATA] = described.model_dump_json(indent=1).encode()
    files.setdefault(CARD, of_data(data).encode())
    files[RUN] = _json(_of_run(version, run))
    files |= _decision(version, run)
    files[SBOM] = sbom.of_environment()
    stated_models = {name: File.of(content) for name, content in models.items()}
    files[ML_BOM] = sbom.of_model(title, architecture, stated_models, described, claimed)
    files[CARD_OF_MODEL] = model_card(title, architecture, described, claimed).encode()
    files["README.md"] = README.read_bytes()
    files["report.html"] = _page(version).encode()
    if LOCK.is_file():
        files[LOCK.name] = LOCK.read_bytes()
    found = answers.answers(files)
    files["clauses.json"] = answers.as_json(found)
    files["clauses.md"] = answers.as_markdown(found).encode()
    return Gathered(files, _statement(title, run, files, tuple(models), claimed, who))


def _statement(
    title: str,
    run: RunRecord,
    files: Mapping[str, bytes],
    models: tuple[str, ...],
    claimed: Sequence[Claim],
    who: str,
) -> Statement:
    predicate = Predicate(
        subject=title,
        run_id=run.run_id,
        certiflow=installed("certiflow"),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        who=who,
        claims=tuple(claimed),
        files={name: File.of(content) for name, content in sorted(files.items())},
        absent=_absent(files),
    )
    return Statement.of(models, predicate)


def _artifacts(run: RunRecord) -> dict[str, bytes]:
    """What of a run's artifacts is evidence: no figures, which are in the report page."""
    kept = dict[str, bytes]()
    for folder in ("tables", "counterexamples", CERTIFICATES):
        kept |= run.artifacts(folder)
    for name in ("config.yaml", CARD):
        path = run.artifact(name)
        if path is not None:
            kept[name] = path.read_bytes()
    return kept


def _models(version: Version, certified: bytes | None) -> dict[str, bytes]:
    """The model as it was trained and as ONNX, once where they are the same."""
    path = downloaded_model(f"models:/{version}")
    content = path.read_bytes()
    if path.suffix == ".onnx" and certified in (None, content):
        return {ONNX: content}
    return {AS_TRAINED + path.suffix: content, ONNX: certified or _as_onnx(path)}


def _as_onnx(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / NETWORK
        write_network(path, network)
        return network.read_bytes()


def _check(version: Version, values: Mapping[Name, float], counts: Mapping[Name, Number]) -> None:
    """Raises `CertiflowError` where MLflow says another number than the tables."""
    from tasks.core.bundle.findings import Findings

    findings = Findings()
    for name in values.keys() & counts.keys():
        findings.number("MLflow", told_name(name), values[name], counts[name].value)
    wrong = [each for each in findings.checked if not each.same]
    if wrong:
        raise CertiflowError(
            f"{version}: MLflow says {wrong[0].what} is {wrong[0].claimed}, its tables say "
            f"{wrong[0].found}: nothing is signed; make the run again"
        )


def told_name(name: Name) -> str:
    """As MLflow has it."""
    metric, epsilon = name
    return metric if epsilon is None else f"{metric}/eps_{decimal(epsilon)}"


def _parquet(verdicts: pd.DataFrame, folder: Path) -> bytes:
    path = folder / PARQUET
    verdicts.to_parquet(path, index=False)
    return path.read_bytes()


def _of_run(version: Version, run: RunRecord) -> dict[str, Any]:
    """The run's numbers, settings and tags, but for MLflow's own, which name machines and users."""
    return {
        "version": str(version),
        "run_id": run.run_id,
        "name": run.name,
        "started": _date(run.started),
        "metrics": dict(sorted(run.metrics.items())),
        "params": dict(sorted(run.params.items())),
        "tags": {k: v for k, v in sorted(run.tags.items()) if not k.startswith("mlflow.")},
    }


def _decision(version: Version, run: RunRecord) -> dict[str, bytes]:
    """The gate's decision, and what was found of the version's guard, where there are any."""
    model, files = RegisteredModel(version.model), dict[str, bytes]()
    decision = model.decision(version.number)
    if decision:
        aliases = sorted(a for a, number in model.aliases().items() if number == version.number)
        files[GATE] = _json({"aliases": aliases, **decision})
    guarded = {k: v for k, v in version.tags.items() if k.startswith("guard/")}
    measured = {k: v for k, v in run.metrics.items() if k.startswith("guard/")}
    if guarded or measured:
        files["guard/figures.json"] = _json({"evaluated": guarded, "of the run": measured})
    return files


def _page(version: Version) -> str:
    """The report page of this version alone, at its own reference radius."""
    contenders = comparison.collect([str(version)], "")
    own = contenders[0].run.tags.get("reference_epsilon")
    (compared,) = comparison.compare(contenders, None if own is None else float(own))
    return page.rendered(contenders, compared)


def _absent(files: Mapping[str, bytes]) -> dict[str, str]:
    """What a bundle may hold, and why this one does not."""
    reasons = {
        f"{CERTIFICATES}/": "none were written: verification.certificates was not set",
        GATE: "nothing was decided on this version",
        "guard/": "its guard was not evaluated",
        LOCK.name: "certiflow was not installed from a checkout",
        "tables/critical_radius.csv": "critical radii were not asked for",
        "tables/properties.csv": "nothing was required of features",
    }
    return {
        name: why
        for name, why in reasons.items()
        if not any(file == name or file.startswith(name) for file in files)
    }


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1).encode() + b"\n"
