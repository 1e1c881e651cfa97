"""Equivalence of two models: for the same inputs their outputs are near each other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain
from tasks.core.properties.query import Interface, Query
from tasks.core.properties.specification import Property, UnsafeRegion


@dataclass(frozen=True, eq=False)
class Equivalence:
    """Every output differs by less than delta, for every input of the boxes that is valid.

    Outputs are those before a softmax or a sigmoid at the models' end.

    Attributes:
        boxes: (n, inputs), or (n, 1) with the same bounds for all inputs.
        domain: which inputs are valid; all of them where it is None.
        shape: of the inputs as data have them; None where nothing says it.

    Raises:
        CertiflowError: delta is not positive, or a lower bound lies above an upper one.
    """

    boxes: Box
    delta: float
    domain: Domain | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.delta < np.inf:
            raise CertiflowError(f"delta is {self.delta:g}: expected a positive number")
        bounds = np.array([self.boxes.lower, self.boxes.upper])
        if not (np.isfinite(bounds).all() and (bounds[0] <= bounds[1]).all()):
            raise CertiflowError(
                f"the box is from {bounds[0].min():g} to {bounds[1].max():g}: expected finite "
                "bounds, the lower ones not above the upper ones"
            )

    @cached_property
    def sha256(self) -> str:
        """Digest of all that says what is asked."""
        words = self.domain.words() if self.domain is not None else ""
        digest = hashlib.sha256(f"equivalence {self.delta!r} {self.shape} {words}".encode())
        for array in (self.boxes.lower, self.boxes.upper):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def query(self, models: Mapping[str, Interface]) -> Query:
        """The question of two models; raises `CertiflowError` where they are not of one kind."""
        (name, first), (other, second) = models.items()
        if first.num_outputs != second.num_outputs:
            raise CertiflowError(
                f"{name} gives {first.num_outputs} outputs, {other} {second.num_outputs}: expected "
                "as many"
            )
        shapes = [(name, first.input_shape), (other, second.input_shape)]
        if self.shape is not None:
            shapes.append(("the data", self.shape))
        for (one, shape), (two, unlike) in combinations(shapes, 2):
            if not Interface(shape, 1).takes(unlike):
                raise CertiflowError(
                    f"{one} takes inputs of shape {shape}, {two} has {unlike}: expected the same"
                )
        inputs, outputs = first.num_inputs, first.num_outputs
        lower, upper = (
            np.ascontiguousarray(np.broadcast_to(each, (len(each), inputs)))
            for each in (self.boxes.lower, self.boxes.upper)
        )
        apart = np.hstack([-np.eye(outputs), np.eye(outputs)])
        regions = [
            UnsafeRegion(box, sign * row[None], np.array([self.delta]))
            for box in (Box(lower, upper)[place : place + 1] for place in range(len(lower)))
            for row in apart
            for sign in (1.0, -1.0)
        ]
        plain = self.domain is None or self.domain.is_plain
        prop = Property(tuple(regions), None if plain else self.domain)
        same = np.arange(inputs)
        return Query(prop, (same, same), (0, 1), of_logits=True)
