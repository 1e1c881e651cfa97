"""`make bench`, third part: certificates of proofs, their size, and what a check costs.

`python -m tests.bench_certificates [FOLDER...]`: every folder holds `expected.json`, ONNX and
VNN-LIB files; without one those of VNN-COMP 2021 in the mirror. All instances that are said to be
`unsat` are to be certified and to pass in float64, a seeded tenth of them in rational arithmetic as
well; none that is said to be `sat` may pass. Then certificates are changed at random and held
against balls that are not robust: none may pass.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tasks.checker.check import check
from tasks.core.certificates.certify import certify_property
from tasks.core.errors import CertiflowError
from tasks.core.properties.vnnlib import read_property
from tasks.core.readers.onnx_network import read_onnx
from tasks.core.search import ladder
from tasks.core.sources.download import MIRROR_VARIABLE
from tests.certified import changed
from tests.checker.changes import false_claims, mutated, passes

SECONDS, EXACT_SHARE = 60.0, 0.1
MUTATIONS = 10_000


@dataclass
class Count:
    """What came of a folder's instances; times in seconds, of each that was certified."""

    proofs: int = 0
    certified: int = 0
    deployed: int = 0
    exact: int = 0
    exact_tried: int = 0
    wrong: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        self.search: list[float] = []
        self.check: list[float] = []
        self.bytes: list[int] = []


def instances(folder: Path) -> Iterator[tuple[Path, Path, str]]:
    """Network, property and expected verdict; of those with one."""
    for entry in json.loads((folder / "expected.json").read_text()):
        expected = str(entry.get("expected", entry.get("verdict", "")))
        yield folder / entry["network"], folder / entry["property"], expected


def count(folder: Path, console: Console, seed: int = 0) -> Count:
    """Certifies and checks all instances of a folder."""
    found, generator = Count(), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        certificate = Path(place) / "certificate.npz"
        for network, prop, expected in instances(folder):
            exactly = generator.uniform() < EXACT_SHARE
            if expected not in {"sat", "unsat"}:
                continue
            found.proofs += expected == "unsat"
            try:
                result = certify_property(network, prop, certificate, timeout_seconds=SECONDS)
            except CertiflowError as error:
                if expected == "unsat":
                    found.refused += 1
                    console.print(f"{network.name} {prop.name}: {error}", soft_wrap=True)
                continue
            if expected == "sat":
                found.wrong += result.proved
                continue
            found.certified += result.proved
            found.deployed += result.deployed
            found.bytes.append(certificate.stat().st_size)
            found.search.append(_searched(network, prop))
            started = perf_counter()
            check(certificate, network, prop)
            found.check.append(perf_counter() - started)
            if exactly:
                found.exact_tried += 1
                found.exact += check(certificate, network, prop, exact=True)[0].proved
    return found


def _searched(network: Path, prop: Path) -> float:
    """The seconds of the verifier from reading both files to its verdict."""
    started = perf_counter()
    read = read_onnx(network).network
    asked = read_property(prop, read.num_inputs, read.num_outputs)
    ladder.decide(read, asked, timeout_seconds=SECONDS, with_marabou=False)
    return perf_counter() - started


def mutations(number: int, console: Console) -> None:
    """Changes of certificates whose claims are false: how many pass, which must be none."""
    generator, false, tried = np.random.default_rng(0), 0, 0
    with tempfile.TemporaryDirectory() as place:
        claims = list(false_claims(Path(place)))
        started = monotonic()
        for turn in range(number):
            model, certificate, wider = claims[turn % len(claims)]
            path = changed(certificate, lambda arrays, w=wider: w | mutated(arrays, generator))
            tried += 1
            false += passes(path, model)
    console.print(
        f"{tried:,} changes of certificates of {len(claims)} networks in "
        f"{monotonic() - started:.0f} s: {false} false passes"
    )


def main() -> None:
    """Prints a table of the folders, and what came of the changes."""
    console = Console(highlight=False)
    mirror = os.environ.get(MIRROR_VARIABLE, "").removeprefix("file://")
    own = [Path(mirror) / "vnncomp2021" / name for name in ("mnistfc", "acasxu")]
    folders = [Path(each) for each in sys.argv[1:]] or [each for each in own if each.is_dir()]
    table = Table(
        title="Certificates, medians; ratio: check to search",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for column in (
        "folder",
        "unsat",
        "certified",
        "deployed",
        "exact",
        "sat passed",
        "bytes",
        "search s",
        "check s",
        "ratio",
    ):
        table.add_column(column, justify="left" if column == "folder" else "right")
    ladder.warm_up()
    for folder in folders:
        found = count(folder, console)
        ratios = [c / s for c, s in zip(found.check, found.search, strict=True)]
        table.add_row(
            folder.name,
            str(found.proofs),
            str(found.certified),
            str(found.deployed),
            f"{found.exact}/{found.exact_tried}",
            str(found.wrong),
            *(
                (
                    f"{median(found.bytes):,.0f}",
                    f"{median(found.search):.3f}",
                    f"{median(found.check):.3f}",
                    f"{median(ratios):.2f}",
                )
                if ratios
                else ("", "", "", "")
            ),
        )
    console.print(table)
    mutations(MUTATIONS, console)


if __name__ == "__main__":
    main()
