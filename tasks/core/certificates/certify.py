"""Certificates of properties and balls: proofs found again, written, checked from the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.checker.check import Result, check
from tasks.checker.network import Network, read_network
from tasks.checker.properties import Part, read_property
from tasks.checker.refused import RefusedError
from tasks.core.arrays import FloatArray, IntArray
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.linear import (
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.certificates.proofs import METHODS, WHOLE, prove
from tasks.core.certificates.writing import BoxProof, write_certificate
from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import GRACE_SECONDS, Resources
from tasks.core.execution.worker_pool import run_jobs
from tasks.core.files import sha256_of
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion, margin_rows
from tasks.core.readers.onnx_network import read_onnx
from tasks.core.search import ladder

BATCH = 500  # boxes whose bounds are held at a time
SAME = 1e-9  # relative difference of two readings of a network in float64
POINTS = 8


@dataclass(frozen=True, eq=False)
class Balls:
    """Questions whether a label wins in boxes: `names` of them, `labels`, and whose each box is."""

    names: list[str]
    labels: IntArray
    boxes: Box
    owners: IntArray


def certify_property(
    network: Path, prop: Path, certificate: Path, *, timeout_seconds: float
) -> Result:
    """Writes the certificate that no point of a VNN-LIB file reaches its region in a network.

    Raises:
        CertiflowError: a file is of what the checker does not read; nothing is proved in time, or
            the checker does not pass it. There is no certificate then.
    """
    lowered, read = provable(network)
    try:
        parts = read_property(prop, read.inputs, read.widths[-1])
    except RefusedError as error:
        raise CertiflowError(f"{error}: there are no certificates of it") from error
    deadline = monotonic() + timeout_seconds
    proofs = [prove(lowered, regions, deadline, read) for regions in map(_regions, parts)]
    if not proofs or not all(proofs):
        raise CertiflowError(
            f"{prop}: nothing was proved of {network.name} in {timeout_seconds:g} s: `certiflow "
            "verify` says what is known; a longer --timeout may help"
        )
    header = _header(network, [prop.stem]) | {
        "property": sha256_of(prop.read_bytes()),
        "property_file": prop.name,
    }
    write_certificate(certificate, header, {}, [proof for proof in proofs if proof])
    (result,) = _checked(certificate, network, prop)
    if not result.proved:
        certificate.unlink()
        raise CertiflowError(f"{prop}: the checker did not pass what was found: {result.reason}")
    return result


def certify_balls(
    network: Path,
    balls: Balls,
    certificate: Path,
    *,
    timeout_seconds: float,
    resources: Resources,
    known: Mapping[str, Sequence[BoxProof]] | None = None,
    on_proof: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Writes one certificate of all balls that are proved again, each within so many seconds.

    Of those in `known` the proofs of all boxes are there already. Returns what the checker says of
    what is written; balls of which it passes nothing are not.

    Raises:
        CertiflowError: the network is of what the checker does not read.
    """
    lowered, read = provable(network)
    solver = (lowered, timeout_seconds, read)
    proofs = by_box(balls, known or {})
    for _ in range(len(proofs) - proofs.count(None)):
        on_proof()
    for place, plain in _plainly_proved(lowered, balls, proofs):
        proofs[place] = plain
        on_proof()
    left = [place for place, proof in enumerate(proofs) if proof is None]
    for place, proof in _searched(solver, balls, left, resources):
        proofs[place] = proof
        on_proof()
    results = written(network, balls, proofs, certificate)
    passed = {result.name for result in results}
    owners = enumerate(balls.owners.tolist())
    lost = [i for i, owner in owners if proofs[i] is not None and balls.names[owner] not in passed]
    if not lost:
        return results
    for place, proof in _searched(solver, balls, lost, resources):  # bounds of a batch were better
        proofs[place] = proof
    return written(network, balls, proofs, certificate)


def written(
    network: Path, balls: Balls, proofs: Sequence[BoxProof | None], certificate: Path
) -> list[Result]:
    """Writes the certificate of those balls whose proofs, one for each box, the checker passes."""
    header = _header(network, balls.names)
    passed = set(range(len(balls.names)))
    while True:
        passed -= {int(balls.owners[i]) for i, proof in enumerate(proofs) if proof is None}
        questions = sorted(passed)
        places = np.flatnonzero(np.isin(balls.owners, questions)).astype(np.int64)
        arrays: dict[str, NDArray[Any]] = {
            "box_lower": balls.boxes.lower[places],
            "box_upper": balls.boxes.upper[places],
            "box_question": np.searchsorted(questions, balls.owners[places]).astype(np.int32),
            "question_label": balls.labels[questions].astype(np.int32),
        }
        names = [balls.names[question] for question in questions]
        found = [proof for place in places.tolist() if (proof := proofs[place]) is not None]
        write_certificate(certificate, header | {"names": names}, arrays, found)
        results = _checked(certificate, network)
        missing = {q for q, result in zip(questions, results, strict=True) if not result.proved}
        if not missing:
            return results
        passed -= missing


def _checked(certificate: Path, network: Path, prop: Path | None = None) -> list[Result]:
    try:
        return check(certificate, network, prop)
    except RefusedError as error:
        certificate.unlink()
        raise CertiflowError(f"{error}: there are no certificates of it") from error


def by_box(balls: Balls, known: Mapping[str, Sequence[BoxProof]]) -> list[BoxProof | None]:
    """Known proofs by box, None where there is none; a ball's boxes are in one order everywhere."""
    left = {name: iter(proofs) for name, proofs in known.items()}
    names = (balls.names[owner] for owner in balls.owners.tolist())
    return [next(left[name]) if name in left else None for name in names]


def _plainly_proved(
    network: ReluNetwork, balls: Balls, proofs: Sequence[BoxProof | None]
) -> Iterator[tuple[int, BoxProof]]:
    """Of the boxes without a proof those that intervals or CROWN prove."""
    labels = balls.labels[balls.owners]
    left = np.array([i for i, proof in enumerate(proofs) if proof is None], dtype=np.intp)
    for start in range(0, len(left), BATCH):
        some = left[start : start + BATCH]
        found = _plainly(network, balls.boxes[some], labels[some])
        yield from ((i, p) for i, p in zip(some.tolist(), found, strict=True) if p is not None)


def _searched(
    solver: tuple[ReluNetwork, float, Network],
    balls: Balls,
    places: Sequence[int],
    resources: Resources,
) -> Iterator[tuple[int, BoxProof | None]]:
    """Of these boxes a proof, or that there is none, as they come from `ProofSolver`s."""
    labels = balls.labels[balls.owners]
    jobs = [BoxJob(i, balls.boxes[i : i + 1], int(labels[i])) for i in places]
    for outcome in run_jobs(
        ProofSolver,
        solver,
        jobs,
        num_workers=resources.num_workers,
        timeout_seconds=lambda job: solver[1] + GRACE_SECONDS,
        memory_limit_bytes=resources.memory_limit_bytes,
    ):
        yield outcome.job.place, outcome.answer


@dataclass(frozen=True, eq=False)
class BoxJob:
    """A ball's box, by its place among all."""

    place: int
    box: Box
    label: int


@dataclass(frozen=True, eq=False)
class ProofSolver:
    """What a solver process holds: the network twice, and how long a box may take."""

    network: ReluNetwork
    timeout_seconds: float
    read: Network

    def __post_init__(self) -> None:
        ladder.warm_up()

    def __call__(self, job: BoxJob) -> BoxProof | None:
        rows = margin_rows([job.label], self.network.num_outputs)[0]
        regions = [UnsafeRegion(job.box, row[None], np.zeros(1)) for row in rows]
        return prove(self.network, regions, monotonic() + self.timeout_seconds, self.read)


def provable(path: Path) -> tuple[ReluNetwork, Network]:
    """The network of an ONNX file, and as the checker reads it, with the same layers and units.

    Raises:
        CertiflowError: the checker reads others, or refuses the file.
    """
    try:
        read = read_network(path)
    except RefusedError as error:
        raise CertiflowError(f"{error}: there are no certificates of it") from error
    network = read_onnx(path).network
    if not _agree(network, read):
        raise CertiflowError(
            f"{path}: the checker reads other units in it than the verifier: there are no "
            "certificates of it"
        )
    return network, read


def check_same(network: ReluNetwork, model: ReluNetwork, points: FloatArray) -> None:
    """Raises `CertiflowError` where they are two functions, by their values at points in float64.

    What is proved of `network` is to be said of `model`.
    """
    ends = [(each.num_inputs, each.num_outputs) for each in (network, model)]
    if ends[0] != ends[1]:
        raise CertiflowError(
            f"the model is asked about {ends[1][0]} inputs and {ends[1][1]} outputs, its file has "
            f"{ends[0][0]} and {ends[0][1]}: certificates would be of another question"
        )
    expected = model(points)
    if not np.allclose(network(points), expected, rtol=SAME, atol=SAME * np.abs(expected).max()):
        raise CertiflowError(
            "the ONNX file of the model computes something else: certificates of it would not be "
            "of the model; please report it"
        )


def _agree(network: ReluNetwork, read: Network) -> bool:
    """Whether both have the same hidden units, in the same order, with the same values."""
    widths = [len(layer.bias) for layer in network.layers]
    if widths != read.widths or any(mask.any() for mask in network.linear):
        return False
    values = np.random.default_rng(0).uniform(-1, 1, (POINTS, read.inputs))
    for steps, expected in zip(read.layers, network.preactivations(values), strict=True):
        for step in steps:
            values = values @ step.weight.T + step.bias
        if not np.allclose(values, expected, rtol=SAME, atol=SAME * np.abs(expected).max()):
            return False
        values = np.maximum(values, 0)
    return True


def _regions(part: Part) -> list[UnsafeRegion]:
    box = Box(part.lower[None], part.upper[None])
    return [UnsafeRegion(box, rows, offsets) for rows, offsets in part.regions]


def _header(network: Path, names: Sequence[str]) -> dict[str, object]:
    digest = sha256_of(network.read_bytes())
    return {"names": list(names), "network": digest, "network_file": network.name}


def _plainly(network: ReluNetwork, boxes: Box, labels: IntArray) -> list[BoxProof | None]:
    """Of each box how intervals or CROWN prove it, for the float32 model if either does; or None.

    CROWN is tried where intervals do not prove that.
    """
    found: list[BoxProof | None] = [None] * len(boxes)
    rows, left = margin_rows(labels, network.num_outputs), np.arange(len(boxes))
    for method, kind in METHODS:
        if len(left) == 0:
            break
        box, asked = boxes[left], rows[left]
        hidden = preactivation_bounds(network, box, method)
        if method == "interval":
            lower = interval_lower_bounds(network, asked, hidden, box)
        else:
            lower = linear_lower_bounds(network, len(network.layers) - 1, asked, hidden, box)
        errors = row_error(network, asked, hidden, box)
        deployed, proved = (np.asarray((lower > least).all(axis=1)) for least in (errors, 0))
        for place, also in zip(left[proved].tolist(), deployed[proved], strict=True):
            found[place] = WHOLE[kind] if also else found[place] or WHOLE[kind]
        left = left[~deployed]
    return found
