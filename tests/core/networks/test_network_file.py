"""A network in a file is the same network, or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import CertiflowError
from tasks.core.networks.network_file import read_network, write_network
from tests.networks import KINDS, Kind, random_network_of


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_as_it_was(kind: Kind, tmp_path: Path) -> None:
    generator = np.random.default_rng(KINDS.index(kind))
    for _ in range(10):
        network = random_network_of(generator, kind, "many")
        write_network(network, tmp_path / "network.npz")
        again = read_network(tmp_path / "network.npz", network.sha256)
        assert again.sha256 == network.sha256
        inputs = generator.uniform(size=(5, network.num_inputs))
        np.testing.assert_array_equal(again(inputs), network(inputs))


def test_what_is_damaged_or_another_network_is_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "network.npz"
    network, other = (random_network_of(generator, "dense", "few") for _ in range(2))
    write_network(network, path)
    with pytest.raises(CertiflowError, match="expected the network"):
        read_network(path, other.sha256)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CertiflowError, match="fetch it again"):
        read_network(path, network.sha256)
    with pytest.raises(CertiflowError, match="fetch it again"):
        read_network(tmp_path / "none.npz", network.sha256)
