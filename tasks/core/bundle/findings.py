"""What an audit finds: each claim beside what was found instead, and what could not be checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.core.errors import CertiflowError, first_line
from tasks.core.evidence.names import one_line

Kind = Literal[
    "signature",
    "files",
    "claim",
    "MLflow",
    "table",
    "model card",
    "report page",
    "model",
    "counterexamples",
    "certificates",
    "again",
]
LONGEST = 300  # characters of what is told
CLOSE = 1e-9  # of a sum of seconds, whose order may differ


class Finding(BaseModel):
    """Something that was checked."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    what: str
    claimed: str
    found: str
    same: bool


class Unchecked(BaseModel):
    """Something that was not, and why."""

    model_config = ConfigDict(frozen=True)

    what: str
    why: str


class CertifiedRow(BaseModel):
    """Of one radius: how many balls are said to be proved, and by what that is shown.

    Attributes:
        robust: balls that the table says are proved.
        certified: of these, by a certificate that was checked.
        deployed: of these, of the float32 model as well.
        refused: by a certificate that shows nothing.
        without: by no certificate.
        witnessed: unknown balls that Marabou alone found robust.
    """

    model_config = ConfigDict(frozen=True)

    epsilon: float
    robust: int
    certified: int
    deployed: int
    refused: int
    without: int
    witnessed: int


class Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self.checked: list[Finding] = []
        self.unchecked: list[Unchecked] = []

    def add(self, kind: Kind, what: str, claimed: str, found: str, same: bool) -> None:
        """Something that was checked; words may be a stranger's, and are kept to a line."""
        words = {"what": what, "claimed": claimed, "found": found}
        told = {name: one_line(text, LONGEST) for name, text in words.items()}
        self.checked.append(Finding(kind=kind, same=same, **told))

    def number(self, kind: Kind, what: str, claimed: float, found: float | None) -> None:
        """A number beside what it is when it is counted again; None where nothing is to count."""
        same = found is not None and math.isclose(claimed, found, rel_tol=CLOSE, abs_tol=1e-12)
        told = "nothing to count it from" if found is None else f"{found:.9g}"
        self.add(kind, what, f"{claimed:.9g}", told, same)

    def skip(self, what: str, why: str) -> None:
        """Something that was not checked."""
        self.unchecked.append(Unchecked(what=one_line(what, LONGEST), why=one_line(why, LONGEST)))

    @contextmanager
    def reading(self, kind: Kind, what: str) -> Iterator[None]:
        """A block that reads what may be anything: what it cannot read is a finding."""
        try:
            yield
        except CertiflowError as error:
            self.add(kind, what, "readable and consistent", str(error), same=False)
        except Exception as error:  # pandas, numpy, onnx and Keras let out any kind
            said = f"malformed ({type(error).__name__}: {first_line(error)})"
            self.add(kind, what, "readable and consistent", said, same=False)
