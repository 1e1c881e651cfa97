"""The local robustness of ACAS Xu 1_1 in the Reluplex paper (Katz et al., CAV 2017, table 3).

Points, radii and the inputs' legal range are those of the authors' published code
(guykatzz/ReluplexCav2017, check_properties/adversarial); verdicts and seconds are the paper's.
Robust means: over the whole box the output that is minimal at its center stays strictly minimal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.core.data.pinned_files import PinnedFile
from tasks.core.models import loading
from tasks.core.models.loading import LoadedModel
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.readers.nnet_network import read_nnet
from tasks.core.sources.download import DatasetUnavailableError, fetch_file, mirror_url

ONNX_FILE = PinnedFile(
    "ACASXU_run2a_1_1_batch_2000.onnx",
    "843f7110bf5a8b7f0eeb9b1c548d9d558db9099328b392423d5a7444a0656dd4",
)
ONNX_FOLDER = "vnncomp2021/acasxu"  # on a mirror
NNET_FILE = PinnedFile(
    "ACASXU_experimental_v2a_1_1.nnet",
    "b79d4bc4056ab44a8985ad2e3eed646a20610422c913367f63060f7680573ce3",
)
NNET_SOURCE = (
    "https://raw.githubusercontent.com/NeuralNetworkVerification/Marabou/"
    "3eefe706bfab15d561837d7734a30e3bc2973140/resources/nnet/acasxu"
)

LOWER = np.array([-0.32842288, -0.50000006, -0.50000006, -0.5, -0.5])  # in normalised units
UPPER = np.array([0.67985777, 0.50000006, 0.50000006, 0.5, 0.5])
POINTS = (
    (0.0, 0.0, 0.0, 0.0, 0.0),
    (0.2, -0.1, 0.0, -0.3, 0.4),
    (0.45, -0.23, -0.4, 0.12, 0.33),
    (-0.2, -0.25, -0.5, -0.3, -0.44),
    (0.61, 0.36, 0.0, 0.0, -0.24),
)
DELTAS = (0.1, 0.075, 0.05, 0.025, 0.01)
PAPER = (  # verdict and seconds, a line per point, a column per delta
    (("sat", 135), ("sat", 239), ("sat", 24), ("unsat", 609), ("unsat", 57)),
    (("unsat", 5880), ("unsat", 1167), ("unsat", 285), ("unsat", 57), ("unsat", 5)),
    (("unsat", 863), ("unsat", 436), ("unsat", 99), ("unsat", 53), ("unsat", 1)),
    (("sat", 2), ("sat", 977), ("sat", 1168), ("unsat", 656), ("unsat", 7)),
    (("unsat", 14560), ("unsat", 4344), ("unsat", 1331), ("unsat", 221), ("unsat", 6)),
)
OTHERWISE_ESTABLISHED = {
    (4, 0.05): (
        "unsat",
        "nnenum, alpha-beta-CROWN and a float64 branch and bound agree that the box clipped to the "
        "legal range is safe, by about 4e-5; without the clipping there is a counterexample",
    )
}


@dataclass(frozen=True)
class PublishedCell:
    """One cell of the table; `remark` says why `established` is not the paper's verdict."""

    point: int  # counted from 1
    delta: float
    paper_verdict: str
    paper_seconds: int
    established: str
    remark: str = ""

    def property(self, model: LoadedModel) -> Property:
        """No other output is as small as the one that is minimal at the point."""
        center = np.array([POINTS[self.point - 1]])
        box = Box(np.maximum(center - self.delta, LOWER), np.minimum(center + self.delta, UPPER))
        outputs = model.network(center)[0]
        minimal = int(outputs.argmin())
        rows = np.eye(len(outputs)) - np.eye(len(outputs))[minimal]
        others = np.delete(rows, minimal, axis=0)
        return Property(tuple(UnsafeRegion(box, row[None], np.zeros(1)) for row in others))


def cells() -> list[PublishedCell]:
    """The table, point after point."""
    found = []
    for point, line in enumerate(PAPER, start=1):
        for delta, (verdict, seconds) in zip(DELTAS, line, strict=True):
            established, remark = OTHERWISE_ESTABLISHED.get((point, delta), (verdict, ""))
            found.append(PublishedCell(point, delta, verdict, seconds, established, remark))
    return found


def load_network(cache: Path) -> LoadedModel:
    """ACAS Xu 1_1 over normalised inputs, its file in `cache / "acasxu"`, downloaded once.

    VNN-COMP's ONNX file from the mirror, if there is one that has it; else the `.nnet` file of the
    Marabou repository, evaluated in float32 by NumPy, whose weights are the same decimals.

    Raises:
        DatasetUnavailableError: names every source tried and why it failed.
        CertiflowError: the cache cannot be written.
    """
    folder = cache.absolute() / "acasxu"  # workers, who stand elsewhere, open the file again
    mirror = mirror_url()
    remedy = f"that holds {ONNX_FOLDER}/{ONNX_FILE.name}"
    failure = ""
    if mirror is not None:
        try:
            addresses = [f"{mirror}/{ONNX_FOLDER}/{ONNX_FILE.name}"]
            return loading.load(fetch_file(ONNX_FILE, folder, addresses, remedy=remedy))
        except DatasetUnavailableError as error:
            failure = f"{error}; nor from elsewhere: "
    try:
        path = fetch_file(NNET_FILE, folder, [f"{NNET_SOURCE}/{NNET_FILE.name}"], remedy=remedy)
    except DatasetUnavailableError as error:
        raise DatasetUnavailableError(f"{failure}{error}", transient=error.transient) from error
    network = read_nnet(path).normalised
    return LoadedModel(network, NumpyRuntime(network))
