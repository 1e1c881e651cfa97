"""What is read of a model's file, and what keeps it from being verified."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from tasks.core.data.datasets import Extent
from tasks.core.errors import CertiflowError
from tasks.core.models.inspection import Ends, check_fit
from tasks.core.tensors.endings import Ending


@dataclass(frozen=True)
class Layer:
    """A layer or node of a file, counted from 1; `obstacle` says what is wrong and what to do."""

    number: int
    name: str
    kind: str
    obstacle: str = ""


@dataclass(frozen=True)
class Examination:
    """What a file holds.

    Attributes:
        input_shape: of one point; None where the file does not say it.
        outputs: classes that are decided between; None where the file does not say it.
        normalisation: by what inputs are scaled first, if by anything.
        ending: what the model makes of its logits.
        blocks: what is wrong with the model as a whole, and what to do.
    """

    file: str
    format: str
    input_shape: tuple[int | None, ...] | None = None
    outputs: int | None = None
    parameters: int | None = None
    normalisation: str = ""
    ending: Ending = "logits"
    layers: tuple[Layer, ...] = ()
    blocks: tuple[str, ...] = ()

    @property
    def is_verifiable(self) -> bool:
        """Whether nothing is wrong; the last word has the whole reading of the file."""
        return not self.blocks and not any(layer.obstacle for layer in self.layers)

    @property
    def ends(self) -> Ends:
        """As many inputs and outputs as a dataset must have."""
        sizes = [size for size in self.input_shape or () if size is not None]
        is_known = self.input_shape is not None and len(sizes) == len(self.input_shape)
        return Ends(prod(sizes) if is_known else None, self.outputs)

    def against(self, name: str, data: Extent) -> Examination:
        """With what does not fit a dataset among its blocks."""
        try:
            check_fit(self.ends, name, data)
        except CertiflowError as error:
            return replace(self, blocks=(*self.blocks, str(error)))
        return self
