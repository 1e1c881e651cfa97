"""The readers, the whole files that they are given damaged, and how files of a kind are damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from onnx.helper import make_node

from flows.actions.verify_command import read_instances
from flows.configuration import load_settings
from tasks.core.models import loading
from tasks.core.models.doctor import examine
from tasks.core.properties.query import Interface
from tasks.core.properties.vnnlib import read_property, read_query
from tasks.core.readers.nnet_network import read_nnet
from tasks.core.sources.own_data import load_own
from tests.command import ROOT
from tests.fuzz.mutations import damaged, damaged_archive, damaged_graph
from tests.loans import write_loans
from tests.model_files import NNET_LINES, normal, saved_nnet, saved_onnx
from tests.property_files import saved_property

Damage = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Reader:
    """What reads a file of the name, whole files of it, and how they are damaged."""

    name: str
    read: Callable[[Path], object]
    whole: Callable[[Path], list[bytes]]
    damage: Damage = damaged


def _read_onnx(path: Path) -> None:
    examine(path)
    loading.load(path)


def _table(path: Path) -> object:
    """The table beside its schema."""
    return load_own(path.with_name("loans.yaml"))


def _properties(folder: Path) -> list[bytes]:
    simple = saved_property(folder / "a.vnnlib", "(>= Y_0 0.5)").read_bytes()
    nested = saved_property(
        folder / "b.vnnlib",
        "(or (and (<= Y_0 Y_1) (>= X_0 0.25)) (and (>= (+ (* 2 Y_0) X_1 -1) 1e-3) (<= X_1 0.5)))",
    ).read_bytes()
    functions = simple.replace(b"declare-const", b"declare-fun").replace(b" Real", b" () Real")
    return [simple, nested, b"(set-logic QF_LRA)\n; text\n" + functions + b"(check-sat)\n"]


def _version_two(_: Path) -> list[bytes]:
    """Of one network, and of two that share an input."""
    one = """(vnnlib-version <2.0>) ; a comment
(declare-network f
  (declare-input X float32 [1,2])
  (declare-output Y float32 [2]))
"""
    other = """(declare-network g (isomorphic-to f)
  (declare-input A float32 [1, 2]) (declare-output B float32 [2]))
"""
    box = "(assert (and (>= X[0,0] -1.0) (<= X[0,0] 1.0) (>= X[0,1] 0) (<= X[0, 1] 0.5)))\n"
    formula = "(assert (or (<= Y[0] Y[1]) (and (>= (* 2.5 Y[1]) (- X[0,0] 1.0)) (== Y[0] 0.25))))\n"
    pair = "(assert (== A[0,1] X[0,1])) (assert (<= (- Y[0] B[1]) (+ -0.125 A[0,0])))\n"
    both = one + other + box + box.replace("X", "A") + pair
    equal = both.replace("isomorphic-to", "equal-to")
    return [(one + box + formula).encode(), both.encode(), equal.encode()]


def _read_version_two(path: Path) -> None:
    """With as many models as the file's networks need."""
    model = Interface((2,), 2)
    is_of_two = path.read_bytes().count(b"isomorphic-to")
    read_query(path, {"f": model, "g": model} if is_of_two else {"f": model})


def _graphs(folder: Path) -> list[bytes]:
    dense = [
        make_node("Gemm", ["x", "a", "b"], ["h"], transB=1, alpha=0.5),
        make_node("Relu", ["h"], ["r"]),
        make_node("MatMul", ["r", "c"], ["m"]),
        make_node("Softmax", ["m"], ["y"], axis=1),
    ]
    weights = {"a": normal(5, 4), "b": normal(5), "c": normal(5, 3)}
    image = [
        make_node("Pad", ["x", "p"], ["z"]),
        make_node("Conv", ["z", "k"], ["h"], strides=[2, 1]),
        make_node("LeakyRelu", ["h"], ["l"]),
        make_node("MaxPool", ["l"], ["q"], kernel_shape=[2, 2], ceil_mode=1),
        make_node("Reshape", ["q", "s"], ["f"]),
        make_node("Clip", ["f", "low"], ["y"]),
    ]
    constants = {
        "p": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
        "k": normal(3, 2, 2, 2),
        "s": np.array([1, -1]),
        "low": np.float32(0),
    }
    return [
        saved_onnx(folder, dense, weights).read_bytes(),
        saved_onnx(folder, image, constants, shape=(1, 2, 6, 5)).read_bytes(),
    ]


def _arrays(folder: Path) -> list[bytes]:
    generator = np.random.default_rng(0)
    path = folder / "images.npz"
    np.savez(
        path,
        train_images=generator.random((20, 4, 4), dtype=np.float32),
        train_labels=np.arange(20) % 3,
        test_images=generator.random((6, 4, 4), dtype=np.float32),
        test_labels=np.arange(6) % 3,
        class_names=np.array(["a", "b", "c"]),
    )
    return [path.read_bytes()]


def _settings(_: Path) -> list[bytes]:
    return [(ROOT / f"conf/{name}.yaml").read_bytes() for name in ("smoke", "credit", "mnist_ibp")]


def _schemas(folder: Path) -> list[bytes]:
    schema = write_loans(folder)
    _cut_rows(folder)
    missing = yaml.safe_load(schema.read_bytes()) | {"missing": "impute"}
    return [schema.read_bytes(), yaml.safe_dump(missing).encode()]


def _cut_rows(folder: Path) -> None:
    """Forty rows are read sooner."""
    table = folder / "loans.csv"
    table.write_bytes(b"\n".join(table.read_bytes().split(b"\n")[:41]) + b"\n")


def _tables(folder: Path) -> list[bytes]:
    write_loans(folder)
    _cut_rows(folder)
    return [(folder / "loans.csv").read_bytes()]


READERS = {
    "vnnlib": Reader("p.vnnlib", lambda path: read_property(path, 2, 2), _properties),
    "vnnlib_two": Reader("p.vnnlib", _read_version_two, _version_two),
    "nnet": Reader(
        "m.nnet", read_nnet, lambda folder: [saved_nnet(folder, NNET_LINES).read_bytes()]
    ),
    "onnx": Reader("m.onnx", _read_onnx, _graphs, damaged_graph),
    "npz": Reader("images.npz", load_own, _arrays, damaged_archive),
    "settings": Reader("settings.yaml", load_settings, _settings),
    "schema": Reader("loans.yaml", load_own, _schemas),
    "table": Reader("loans.csv", _table, _tables),
    "instances": Reader(
        "i.csv",
        read_instances,
        lambda _: [
            b'network,property,timeout\nm.onnx,p.vnnlib,20\n"a, b.onnx",q.vnnlib,1e3\n',
            b"\"[('f', 'a.onnx'), ('g', 'b.onnx')]\",p.vnnlib,100\nm.onnx,q.vnnlib,20\n",
        ],
    ),
}
