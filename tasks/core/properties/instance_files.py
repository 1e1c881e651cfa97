"""A network and its questions as a folder of VNN-COMP, which any verifier can be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import CertiflowError
from tasks.core.files import written_atomically
from tasks.core.properties.specification import Property
from tasks.core.properties.vnnlib_export import vnnlib_text

Question = tuple[str, Property, float]  # a name, what is asked, and a time limit in seconds

INSTANCES = "instances.csv"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+=-]{0,199}")


def instance_files(
    network: bytes, questions: Sequence[Question], num_outputs: int, name: str = "model"
) -> dict[str, bytes]:
    """`onnx/NAME.onnx`, `vnnlib/*.vnnlib` and `instances.csv`, by their paths in the folder.

    A line of `instances.csv` is network,property,timeout, in the order of the questions, without a
    heading.

    Raises:
        CertiflowError: a name is no file's name or stands twice, a time limit is not positive, or
            `vnnlib_text` refuses a property.
    """
    onnx = f"onnx/{_checked(name)}.onnx"
    files, lines = {onnx: network}, []
    for question, prop, timeout in questions:
        path = f"vnnlib/{_checked(question)}.vnnlib"
        if path in files:
            raise CertiflowError(f"the question '{question}' stands twice; name each differently")
        if not 0 < timeout < float("inf"):
            raise CertiflowError(
                f"the question '{question}' has a time limit of {timeout}; expected seconds above 0"
            )
        files[path] = vnnlib_text(prop, num_outputs).encode()
        lines.append(f"{onnx},{path},{repr(float(timeout)).removesuffix('.0')}\n")
    files[INSTANCES] = "".join(lines).encode()
    return files


def write_instances(
    folder: Path,
    network: bytes,
    questions: Sequence[Question],
    num_outputs: int,
    name: str = "model",
) -> Path:
    """Writes `instance_files` into a folder, made where it is missing: the path of its list."""
    for path, content in instance_files(network, questions, num_outputs, name).items():
        with written_atomically(folder / path) as temporary:
            temporary.write_bytes(content)
    return folder / INSTANCES


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise CertiflowError(
            f"'{name[:80]}' cannot name a file of a question; expected letters, digits, @ . _ + = -"
        )
    return name
