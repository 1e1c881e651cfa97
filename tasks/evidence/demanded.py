"""Evidence that a promotion demands: gathered, audited, signed, and kept with the version's run."""

from __future__ import annotations

import getpass
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tasks import console
from tasks.core.bundle import archive
from tasks.core.errors import CertiflowError
from tasks.core.files import sha256_of
from tasks.data import DatasetRef, load
from tasks.evidence import audit
from tasks.evidence.gathering import gather
from tasks.evidence.signing import own_key
from tasks.tracking import Version, log_file, run_of

NAME = "evidence.zip"  # of a run's artifacts


@dataclass(frozen=True)
class Demanded:
    """What came of it: the bundle's digest, or why there is none that holds."""

    sha256: str = ""
    problem: str = ""


def demanded(version: Version, dataset: DatasetRef) -> Demanded:
    """The bundle of a version, audited but for attacks and bounds on the whole test set.

    One that holds is an artifact of the version's run, `evidence.zip`.
    """
    with console.stage("audit", 2) as progress:
        try:
            run = run_of(version)
            gathered = gather(version, run, load(dataset), dataset.source, getpass.getuser())
            progress.advance()
            found = audit.of_version(gathered, str(version), audit.Asked(quick=True))
        except CertiflowError as error:
            return Demanded(problem=str(error))
        wrong = [finding for finding in found.checked if not finding.same]
        if wrong:
            first = wrong[0]
            return Demanded(
                problem=f"{first.what} is said to be {first.claimed}, found {first.found}"
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / NAME
            archive.write(path, gathered.sealed(own_key()))
            log_file(run.run_id, path)
            digest = sha256_of(path.read_bytes())
        progress.advance(note=f"{len(found.checked)} checks hold, {NAME} {digest[:16]}")
    return Demanded(sha256=digest)
