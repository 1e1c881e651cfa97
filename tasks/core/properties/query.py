"""What a property file asks, and of which models: one network, or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.properties.specification import Property


@dataclass(frozen=True)
class Interface:
    """What a model takes and gives; its outputs are counted flat."""

    input_shape: tuple[int, ...]
    num_outputs: int

    @property
    def num_inputs(self) -> int:
        return prod(self.input_shape)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether inputs of this shape are its inputs, element by element in the same order.

        Axes of length 1 do not count, and a flat shape of either is every shape of its size.
        """
        if prod(shape) != self.num_inputs:
            return False
        own, other = ([size for size in each if size != 1] for each in (self.input_shape, shape))
        return own == other or min(len(own), len(other)) <= 1


@dataclass(frozen=True)
class Variable:
    """A tensor as a file of VNN-LIB 2.0 declares it; its elements are counted row by row."""

    name: str
    element: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Assigned(Variable):
    """A tensor of a counterexample."""

    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Query:
    """A property of one network, or of several that stand side by side.

    Attributes:
        prop: its inputs are those that the networks have together, each of them once; its
            outputs those of all networks, one after the other.
        columns: of each network, the places of its inputs among these.
        models: of each network, the place of its model among those that were given.
        inputs, outputs: of each network, as the file calls them; none in VNN-LIB 1.0.
        of_logits: whether it speaks of what models give before a softmax or a sigmoid at their end.
    """

    prop: Property
    columns: tuple[IntArray, ...]
    models: tuple[int, ...]
    inputs: tuple[Variable, ...] = ()
    outputs: tuple[Variable, ...] = ()
    of_logits: bool = False

    @classmethod
    def of_one(cls, prop: Property, num_inputs: int) -> Query:
        """What VNN-LIB 1.0 can ask."""
        return cls(prop, (np.arange(num_inputs),), (0,))

    @property
    def is_of_several(self) -> bool:
        return len(self.models) > 1

    def expanded(self, joined: FloatArray) -> FloatArray:
        """The inputs of all networks, one after the other, of those that they have together."""
        return joined[np.concatenate(self.columns)]

    def joined(self, expanded: FloatArray) -> FloatArray:
        """The reverse."""
        places = np.concatenate(self.columns)
        found = np.empty(1 + places.max())
        found[places] = expanded
        return found

    def assigned(self, inputs: Sequence[float], outputs: Sequence[float]) -> tuple[Assigned, ...]:
        """The file's variables, in its order, with the values of expanded inputs and of outputs."""
        found, rest = list[Assigned](), [list(inputs), list(outputs)]
        for pair in zip(self.inputs, self.outputs, strict=True):
            for side, variable in enumerate(pair):
                values, rest[side] = rest[side][: variable.size], rest[side][variable.size :]
                found.append(
                    Assigned(variable.name, variable.element, variable.shape, tuple(values))
                )
        return tuple(found)
