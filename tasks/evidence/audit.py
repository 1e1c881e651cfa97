"""The audit of a bundle, or of a version in MLflow: what it says, and what is found instead."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.core.bundle import archive, keys
from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.envelope import Envelope
from tasks.core.bundle.findings import CertifiedRow, Finding, Findings, Unchecked
from tasks.core.bundle.recount import Tables
from tasks.core.bundle.replay import undisturbed
from tasks.core.bundle.statement import ENVELOPE, KEY, Statement
from tasks.core.errors import CertiflowError
from tasks.core.evidence.names import one_line
from tasks.evidence import again, certificates, examination, instances, report_page
from tasks.evidence.gathering import Gathered

NOT_READ = {
    "report.html": "its pictures, and what is not on the version's line, are not read",
    "gate.json": "the decision rests on the champion of that time as well, which is not here",
    "guard/figures.json": "attacks on the guard are not made again",
}


@dataclass(frozen=True)
class Asked:
    """How far an audit goes.

    Attributes:
        quick: without attacks and bounds on the whole test set.
        instances: a folder for the decided balls as another verifier reads them; None for none.
    """

    quick: bool = False
    instances: Path | None = None


class Audit(BaseModel):
    """What was audited, and what came of it; `--json` writes it.

    Attributes:
        subject: the version, as the evidence names it.
        key_id: of the key that signed it; None for a version in MLflow, which nobody signs.
        signer_known: whether the key was named by whoever audits, not by the bundle itself.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    subject: str
    key_id: str | None
    signer_known: bool
    checked: tuple[Finding, ...]
    unchecked: tuple[Unchecked, ...]
    certificates: tuple[CertifiedRow, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing differs from what is claimed."""
        return all(finding.same for finding in self.checked)


def of_archive(path: Path, key: Path | None, asked: Asked) -> Audit:
    """Audits a bundle; `key` is the public key that must have signed it.

    Without one the key in the bundle is taken, which shows that the bundle is whole, not whose it
    is.

    Raises:
        CertiflowError: the archive is damaged, or holds no statement; the key cannot be read.
    """
    known = None if key is None else keys.read_public(key)
    files, findings = archive.read(path), Findings()
    for name in (ENVELOPE, KEY):
        if name not in files:
            raise CertiflowError(f"{path}: holds no {name}: it is no bundle of evidence")
    envelope = Envelope.parsed(files[ENVELOPE], ENVELOPE)
    public = known or keys.public_of(files[KEY], KEY)
    signed = envelope.is_by(public)
    findings.add(
        "signature",
        "by the key named" if known else "by the key in the archive",
        envelope.key_id[:8],
        keys.key_id(public)[:8] + ("" if signed else ", which did not sign this"),
        same=signed,
    )
    statement = Statement.parsed(envelope.payload)
    different = statement.differences(files)
    for name, why in different.items():
        findings.add("files", name, "as signed", why, same=False)
    if not different:
        count = len(statement.predicate.files)
        findings.add("files", "files of the SHA-256 stated", f"{count}", f"{count}", same=True)
    if known is None:
        findings.skip("who signed it", "no key was named with --key: only that it is whole")
    rows = _examined(files, statement, findings, asked)
    return Audit(
        source=str(path),
        subject=one_line(statement.predicate.subject),
        key_id=envelope.key_id,
        signer_known=known is not None,
        checked=tuple(findings.checked),
        unchecked=tuple(findings.unchecked),
        certificates=rows,
    )


def of_version(gathered: Gathered, source: str, asked: Asked) -> Audit:
    """Audits what MLflow holds of a version."""
    findings = Findings()
    findings.skip("signature", "MLflow's own files, which nobody signs")
    rows = _examined(gathered.files, gathered.statement, findings, asked)
    return Audit(
        source=source,
        subject=gathered.statement.predicate.subject,
        key_id=None,
        signer_known=False,
        checked=tuple(findings.checked),
        unchecked=tuple(findings.unchecked),
        certificates=rows,
    )


def _examined(
    files: Mapping[str, bytes], statement: Statement, findings: Findings, asked: Asked
) -> tuple[CertifiedRow, ...]:
    """Everything that follows from the files, and from the data where they can be had."""
    rows: tuple[CertifiedRow, ...] = ()
    for file, why in NOT_READ.items():
        if file in files:
            findings.skip(file, why)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive.unpack(files, folder)
        with findings.reading("table", "data.json and tables"):
            data = examination.described(folder)
            tables = Tables.of(folder, data.positive)
            rows = _with_tables(folder, statement, tables, data, findings, asked)
    return rows


def _with_tables(
    folder: Path,
    statement: Statement,
    tables: Tables,
    data: DataDescription,
    findings: Findings,
    asked: Asked,
) -> tuple[CertifiedRow, ...]:
    counts = examination.counted(tables, findings)
    examination.check_claims(statement, counts, data, findings)
    with findings.reading("MLflow", "run.json"):
        examination.check_run(folder, counts, findings)
    examination.check_tables(folder, tables, data, findings)
    examination.check_cards(folder, statement, findings)
    with findings.reading("report page", "report.html"):
        report_page.check(folder, tables, data.sha256, findings)
    with findings.reading("model", "the model's files"):
        examination.check_models(folder, data, findings)
    with findings.reading("counterexamples", "all"):
        examination.check_counterexamples(folder, tables.verdicts, data, findings)
    rows: tuple[CertifiedRow, ...] = ()
    with findings.reading("certificates", "all"):
        found = certificates.checked(folder, findings)
        rows = certificates.rows(tables.verdicts, found, findings)
    _on_data(folder, tables, data, findings, asked)
    return rows


def _on_data(
    folder: Path,
    tables: Tables,
    data: DataDescription,
    findings: Findings,
    asked: Asked,
) -> None:
    points = undisturbed(folder)
    try:
        settings = again.settings_of(folder)
        with findings.reading("MLflow", "settings in config.yaml"):
            again.check_settings(folder, settings, findings)
        dataset = again.obtained(data, settings.data)
    except CertiflowError as error:
        findings.skip("accuracy, attacks and bounds, on the data", str(error))
        findings.skip("that verified points are of the test set", str(error))
    else:
        with findings.reading("again", "data.json"):
            again.check_data(data, dataset, findings)
            again.check_drawn(tables, settings, dataset, findings)
        with findings.reading("again", "verified points"):
            points = again.check_sample(folder, tables.verdicts, dataset, findings)
        with findings.reading("again", "accuracy"):
            again.check_accuracy(folder, tables, dataset, settings, findings, quick=asked.quick)
    if tables.radii is not None:
        with findings.reading("counterexamples", "critical radii"):
            examination.check_radii(folder, tables.radii, data, points, findings)
    with findings.reading("certificates", "questions of certificates"):
        certificates.check_questions(folder, data, points, findings)
    if asked.instances is not None:
        _write_instances(asked.instances, folder, tables, data, points, findings)


def _write_instances(
    target: Path,
    folder: Path,
    tables: Tables,
    data: DataDescription,
    points: Mapping[int, tuple[Any, int]],
    findings: Findings,
) -> None:
    try:
        count = instances.write(target, folder, tables.verdicts, data, points)
    except CertiflowError as error:
        findings.skip(f"instances in {target}", f"none are written: {error}")
    else:
        findings.skip(f"{count} balls in {target}", "they are for another verifier to repeat")
