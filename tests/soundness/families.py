"""All families by name, and how many cases of each a round draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.soundness import families_dense as dense
from tests.soundness import families_edges as edges
from tests.soundness import families_files as files
from tests.soundness import families_layers as layers
from tests.soundness import families_pairs as pairs
from tests.soundness.cases import Case
from tests.soundness.engines import GROUPS, guarded
from tests.soundness.exact import TooManyCellsError
from tests.soundness.families_curved import curved
from tests.soundness.families_instances import instances
from tests.soundness.families_onnx import onnx_operators
from tests.soundness.findings import Finding

Draw = Callable[[np.random.Generator], Case]
Check = Callable[[np.random.Generator, Path], list[Finding]]

FILES = "files"  # the one group of questions that a family of files has

NETWORKS: dict[str, tuple[Draw, int]] = {
    "plain": (dense.plain, 2),
    "near_ties": (dense.near_ties, 2),
    "conjunctions": (dense.conjunctions, 3),
    "kinks": (dense.kinks, 2),
    "fixed_inputs": (dense.fixed_inputs, 3),
    "chains": (dense.chains, 3),
    "narrow_units": (dense.narrow_units, 6),
    "spikes": (dense.spikes, 1),
    "mixed_integer": (dense.mixed_integer, 2),
    "images": (dense.images, 5),
    "constant_rows": (edges.constant_rows, 7),
    "regions": (edges.regions, 2),
    "scales": (edges.scales, 2),
    "huge_and_tiny": (edges.huge_and_tiny, 2),
    "decay": (edges.decay, 2),
    "boxes": (edges.boxes, 4),
    "far": (edges.far, 3),
    "drift": (edges.drift, 3),
    "folded": (edges.folded, 3),
    "overflow": (edges.overflow, 5),
    "underflow": (edges.underflow, 4),
    "cancelling": (edges.cancelling, 3),
    "convolutions": (layers.convolutions, 4),
    "residuals": (layers.residuals, 3),
    "pooling": (layers.pooling, 4),
    "twins": (pairs.twins, 4),
}
READERS: dict[str, tuple[Check, int]] = {
    "onnx": (onnx_operators, 60),
    "keras": (files.keras_layers, 1),
    "vnnlib": (files.vnnlib_terms, 2),
    "instances": (instances, 4),
    "curved": (curved, 6),
    "two_networks": (pairs.two_networks, 4),
}


@dataclass(frozen=True, order=True)
class Job:
    """One case and a group of questions about it: one answer of a process."""

    family: str
    seed: int
    group: str

    def case(self) -> Case:
        """The case, always the same."""
        return NETWORKS[self.family][0](self._generator())

    def findings(self, folder: Path) -> list[Finding]:
        """All answers; files are left in the folder. None where the case is too large to know."""
        if self.family in READERS:
            check = READERS[self.family][0]
            return guarded(self.family, lambda: check(self._generator(), folder))
        try:
            return GROUPS[self.group](self.case(), self.seed)
        except TooManyCellsError:
            return []

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, *self.family.encode()])


def jobs_of_round(number: int) -> list[Job]:
    """Those of the round's seeds, the families mixed: what takes longest to import goes first."""
    jobs = []
    for family, (_, count) in READERS.items():
        jobs += [Job(family, number * count + place, FILES) for place in range(count)]
    for family, (_, count) in NETWORKS.items():
        seeds = range(number * count, (number + 1) * count)
        jobs += [Job(family, seed, group) for seed in seeds for group in GROUPS]
    return sorted(jobs, key=lambda job: (job.family != "keras", job.seed, job.family, job.group))
