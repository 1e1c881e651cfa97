"""The files with which a version can be served behind its proofs, without TensorFlow or MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.files import sha256_of, written_atomically
from tasks.core.guard.certificate import CertificateRuntime, as_served, exported
from tasks.core.guard.clean import CleanRadii, clean_radii
from tasks.core.guard.contract import Contract
from tasks.core.guard.drift import Profile
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.network_file import read_network, write_network
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation

CERTIFICATE, NETWORK, CLEAN, DESCRIPTION = (
    "certificate.onnx",
    "network.npz",
    "clean.npz",
    "guard.json",
)


class Description(BaseModel):
    """What the files are of.

    Attributes:
        name: of the dataset.
        shape: of one input.
        features, relations: of a table's rows; none of images.
        completions: what stands for a feature's empty cells; a feature without may have none.
        down, up: how far each input moves at epsilon 1, or one number for all pixels.
        unit: what epsilon is told in.
        profile: of clean inputs, that those in service are compared with.
        sha256: of the network, and of the other files by their names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    features: tuple[Feature, ...] = ()
    relations: tuple[str, ...] = ()
    completions: dict[str, str] = {}
    down: tuple[float, ...]
    up: tuple[float, ...]
    unit: str
    profile: Profile
    network_sha256: str
    sha256: dict[str, str]

    @property
    def contract(self) -> Contract:
        """What a request must be."""
        return Contract(self.perturbation.domain, self.completions)

    @property
    def perturbation(self) -> Perturbation:
        """What an attacker may have done to a request."""
        domain = Domain(self.shape)
        if self.features:
            domain = Domain.of_table(self.features, self.relations)
        down, up = np.array(self.down), np.array(self.up)
        return Perturbation(domain, np.maximum(down, up), down, up, unit=self.unit)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A version's files, read and held against their digests."""

    description: Description
    certificate: CertificateRuntime
    network: ReluNetwork
    clean: CleanRadii


def write(
    folder: Path, network: ReluNetwork, data: Dataset, epsilons: Sequence[float], seed: int
) -> list[Path]:
    """The four files, of a classifier on a dataset; `epsilons` are those that will be asked for.

    Raises:
        CertiflowError: it cannot be served so: its answer is a number, categories may change, or
            its values are too great for float32.
    """
    if data.tolerance is not None:
        raise CertiflowError(
            "a model that predicts a number has no label to guard: expected a classifier; use "
            "`certiflow predict`"
        )
    network, perturbation = as_served(network), data.perturbation.both_ways()
    model = exported(network, perturbation)
    folder.mkdir(parents=True, exist_ok=True)
    with written_atomically(folder / CERTIFICATE) as temporary:
        onnx.save(model, temporary)
    write_network(network, folder / NETWORK)
    certificate = CertificateRuntime(folder / CERTIFICATE)
    clean = clean_radii(certificate, data.test_inputs, data.test_labels, epsilons, seed)
    with written_atomically(folder / CLEAN) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **vars(clean))
    domain = perturbation.domain
    description = Description(
        name=data.name,
        class_names=data.class_names,
        shape=data.input_shape,
        features=domain.features,
        relations=tuple(relation.text for relation in domain.relations),
        completions=dict(data.completions),
        down=tuple(perturbation.down.tolist()),
        up=tuple(perturbation.up.tolist()),
        unit=perturbation.unit,
        profile=_profile(certificate, data),
        network_sha256=network.sha256,
        sha256={name: _digest(folder / name) for name in (CERTIFICATE, NETWORK, CLEAN)},
    )
    with written_atomically(folder / DESCRIPTION) as temporary:
        temporary.write_text(description.model_dump_json(indent=1), encoding="utf-8")
    return [folder / name for name in (CERTIFICATE, NETWORK, CLEAN, DESCRIPTION)]


def _profile(certificate: CertificateRuntime, data: Dataset) -> Profile:
    labels = certificate.certified(data.test_inputs, epsilons=[0.0]).labels
    return Profile.of(data.domain, data.test_inputs, labels, data.num_classes)


def read(folder: Path) -> Bundle:
    """Raises `CertiflowError` where a file is missing, damaged, or another than was written."""
    try:
        text = (folder / DESCRIPTION).read_text(encoding="utf-8")
        description = Description.model_validate_json(text)
        for name, sha256 in description.sha256.items():
            if _digest(folder / name) != sha256:
                raise CertiflowError(
                    f"{folder / name}: expected SHA-256 {sha256}, found another: fetch it again"
                )
        with np.load(folder / CLEAN, allow_pickle=False) as arrays:
            clean = CleanRadii(**arrays)
    except (OSError, ValidationError) as error:
        raise CertiflowError(f"{folder}: cannot be read as a guard's files ({error})") from error
    network = read_network(folder / NETWORK, description.network_sha256)
    return Bundle(description, CertificateRuntime(folder / CERTIFICATE), network, clean)


def _digest(path: Path) -> str:
    return sha256_of(path.read_bytes())
