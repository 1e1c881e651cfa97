"""What `certiflow certify`, `check`, `evidence` and `audit` do and print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.actions.head import write_json
from flows.actions.summary import short
from flows.configuration import data_of, recorded_settings
from flows.processes import environment
from tasks import console, tracking
from tasks.checker.certificate import read_certificate
from tasks.checker.check import Result
from tasks.checker.check import check as checked
from tasks.checker.refused import RefusedError
from tasks.core.bundle import archive, keys
from tasks.core.errors import CertiflowError
from tasks.core.files import sha256_of
from tasks.core.sources.download import fetch
from tasks.data import load_checked
from tasks.evidence.signing import own_key
from tasks.tracking import answered, run_of

if TYPE_CHECKING:
    from tasks.core.bundle.findings import Kind
    from tasks.evidence.audit import Audit
    from tasks.evidence.gathering import Gathered

SHOWN = 10  # questions that are not proved, by name
TITLES: dict[Kind, str] = {
    "signature": "Signature",
    "files": "Files",
    "claim": "Claims, counted again from the tables",
    "MLflow": "Metrics in MLflow, likewise",
    "model card": "Model card and bill of materials, against the claims",
    "report page": "Report page, its line of the version",
    "table": "Tables, against each other",
    "model": "Models, against each other",
    "counterexamples": "Counterexamples, in onnxruntime",
    "certificates": "Certificates, by the checker",
    "again": "Found anew, on the data",
}


def certify(model: Path, prop: Path, path: Path, timeout: float, json: Path | None) -> None:
    """Writes and checks the certificate.

    Raises:
        CertiflowError: there is nothing to certify, or it did not pass.
    """
    from tasks.core.certificates.certify import certify_property

    for file, kind in ((model, "an ONNX file"), (prop, "a VNN-LIB file")):
        if not file.is_file():
            raise CertiflowError(f"{file}: no such file; give the path of {kind}")
    if model.suffix != ".onnx":
        raise CertiflowError(
            f"{model}: expected an ONNX file, got '{model.suffix}'; runs with "
            "verification.certificates write one of a Keras model"
        )
    started = monotonic()
    result = certify_property(model, prop, path, timeout_seconds=timeout)
    seconds, size = monotonic() - started, path.stat().st_size
    write_json(json, asdict(result) | {"certificate": str(path), "bytes": size, "seconds": seconds})
    print("unsat")
    console.console.print(
        f"certificate {short(str(path))}, {size:,} bytes, {seconds:.2f} s, checked{_also(result)}",
        markup=False,
        soft_wrap=True,
    )


def check(
    certificate: Path,
    model: Path | None,
    prop: Path | None,
    exact: bool,
    only: Sequence[str],
    json: Path | None,
) -> None:
    """Prints what is proved.

    Raises:
        CertiflowError: something is not, or a file is refused.
    """
    started = monotonic()
    try:
        header, _ = read_certificate(certificate)
        found = checked(
            certificate,
            _meant(certificate, header.get("network_file"), model, "--model"),
            _meant(certificate, header.get("property_file"), prop, "--property")
            if "property" in header
            else prop,
            exact=exact,
            only=only,
        )
    except RefusedError as error:
        raise CertiflowError(str(error)) from error
    if not found:
        known = ", ".join(header["names"][:3]) or "none"
        raise CertiflowError(f"{certificate}: no question of this name; it has {known}")
    seconds = monotonic() - started
    write_json(json, {"results": [asdict(result) for result in found], "seconds": seconds})
    proved = sum(result.proved for result in found)
    deployed = sum(result.deployed for result in found)
    left = [result for result in found if not result.proved]
    for result in left[:SHOWN]:
        print(f"{result.name}: not proved: {result.reason}")
    arithmetic = "in rational arithmetic" if exact else "in float64 with rounding covered"
    print(
        f"{proved} of {len(found)} proved {arithmetic}, {deployed} of the float32 model as well, "
        f"{seconds:.2f} s"
    )
    if left:
        raise CertiflowError(f"{certificate}: {len(left)} of {len(found)} are not proved")


def _meant(certificate: Path, name: object, given: Path | None, option: str) -> Path:
    path = given or certificate.with_name(Path(str(name or "")).name or "none")
    if not path.is_file():
        raise CertiflowError(f"{path}: no such file; name it by {option}")
    return path


def _also(result: Result) -> str:
    return ", also of the float32 model" if result.deployed else ""


@answered("evidence")
def evidence(
    words: str, output: Path, key_file: Path | None, who: str, json_file: Path | None
) -> None:
    """Writes the signed bundle of a version, and says what it holds."""
    gathered = _gathered(words, who)
    key = own_key() if key_file is None else keys.read_private(key_file)
    files = gathered.sealed(key)
    archive.write(output, files)
    predicate = gathered.statement.predicate
    size, digest = output.stat().st_size, sha256_of(output.read_bytes())
    told = {
        "version": predicate.subject,
        "file": str(output),
        "bytes": size,
        "sha256": digest,
        "key_id": keys.key_id(key.public_key()),
        "files": sorted(files),
        "claims": [claim.model_dump() for claim in predicate.claims],
        "absent": predicate.absent,
    }
    write_json(json_file, told)
    out = Console(highlight=False)
    for title, text in (
        ("version", predicate.subject),
        ("evidence", f"{short(str(output))}, {len(files)} files, {size:,} bytes"),
        ("SHA-256", digest),
        ("claims", f"{len(predicate.claims)}, by {who}, signed by key {told['key_id']}"),
        *(("without", f"{name}: {why}") for name, why in predicate.absent.items()),
    ):
        out.print(f"{title:<9} {text}", soft_wrap=True, markup=False)


@answered("audit")
def audit(
    what: str,
    key_file: Path | None,
    quick: bool,
    instances: Path | None,
    json_file: Path | None,
) -> None:
    """Audits a bundle, or a version in MLflow, and prints what it found.

    Raises:
        CertiflowError: at the end, when something differs from what is claimed.
    """
    environment.load_keras()
    from tasks.evidence import audit as auditing

    asked = auditing.Asked(quick, instances)
    if Path(what).is_file() or Path(what).suffix == ".zip":
        found = auditing.of_archive(Path(what), key_file, asked)
    elif key_file is not None:
        raise CertiflowError(f"{what}: --key is of bundles; nobody signs what MLflow holds")
    else:
        found = auditing.of_version(_gathered(what, "MLflow"), what, asked)
    write_json(json_file, {"passed": found.passed, **found.model_dump()})
    _show(found)
    wrong = [each for each in found.checked if not each.same]
    if wrong:
        first = wrong[0]
        raise CertiflowError(
            f"{found.subject}: {len(wrong)} of {len(found.checked)} checks differ: {first.kind}, "
            f"{first.what}: {first.claimed} claimed, {first.found} found; do not rely on it"
        )


def _gathered(words: str, who: str) -> Gathered:
    environment.load_keras()
    from tasks.evidence.gathering import gather

    run = tracking.find_run(*tracking.in_full([words]))
    registered = run.tags.get(tracking.VERSION_TAG)
    if registered is None:
        raise CertiflowError(
            f"{words}: its run {run.name} registered no version: name one such as "
            f"{tracking.PREFIX}mnist/3"
        )
    model = tracking.RegisteredModel(tracking.model_name(run.tags["dataset"]))
    version = model.version(int(registered))
    settings = data_of(recorded_settings(run), run.tags["dataset"])
    fetch(settings.dataset, settings.cache, on_warning=console.warn)
    data = load_checked(settings)
    if data.sha256 != run.tags["dataset.sha256"]:
        raise CertiflowError(
            f"{version}: {settings.dataset} is other data now than its run had: expected "
            f"{run.tags['dataset.sha256']}, found {data.sha256}; bring those back"
        )
    return gather(version, run_of(version), data, settings.dataset, who)


def _show(found: Audit) -> None:
    out = Console(highlight=False)
    table = Table(
        title=f"{found.subject}, audited from {found.source}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
        show_edge=False,
    )
    for column in ("what", "claimed", "found", "same"):
        table.add_column(column, overflow="fold")
    for kind, title in TITLES.items():
        some = [finding for finding in found.checked if finding.kind == kind]
        if not some:
            continue
        table.add_section()
        table.add_row(Text(title, "bold"))
        told_together = kind in {"MLflow", "model card", "report page"}
        shown = [each for each in some if not (told_together and each.same)]
        for finding in shown:
            style = "" if finding.same else "bold red"
            cells = (finding.what, finding.claimed, finding.found, "yes" if finding.same else "NO")
            table.add_row(*(Text(cell, style) for cell in cells))
        if told_together:
            count = str(len(some) - len(shown))
            table.add_row("numbers that are the same", count, count, "yes")
    out.print(table)
    for row in found.certificates:
        out.print(
            f"epsilon {row.epsilon:g}: {row.robust} proofs, {row.certified} certified by check "
            f"({row.deployed} deployed), {row.refused} refused, {row.without} without certificate; "
            f"{row.witnessed} witnessed only",
            soft_wrap=True,
        )
    for each in found.unchecked:
        out.print(f"not checked: {each.what}: {each.why}", soft_wrap=True, markup=False)
