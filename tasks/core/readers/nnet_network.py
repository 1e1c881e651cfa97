"""The `.nnet` text format of Kyle Julian (2016), in which the ACAS Xu networks were published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.files import read_text
from tasks.core.networks.network import Affine, ReluNetwork, Roundings
from tasks.core.properties.numerals import float_of


@dataclass(frozen=True, eq=False)
class NnetNetwork:
    """The file's network with and without the normalisation that the file itself prescribes.

    `network` takes and gives physical units; `normalised` is the bare layers, as ONNX files of the
    same networks have them. The format's own evaluator first clips inputs to [`lower`, `upper`],
    each of shape (inputs,); neither network does.
    """

    network: ReluNetwork
    normalised: ReluNetwork
    lower: FloatArray
    upper: FloatArray


def read_nnet(path: Path) -> NnetNetwork:
    """The network of a `.nnet` file; raises `CertiflowError` naming the file and the line."""
    try:
        return _network(_Lines(read_text(path)))
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error
    except OSError as error:
        raise CertiflowError(f"{path}: {error.strerror}; give the path of a .nnet file") from error


class _Lines:
    """The file's lines of comma-separated numbers, without the comments they start with."""

    def __init__(self, text: str) -> None:
        self._lines: Iterator[tuple[int, str]] = (
            (number, line)
            for number, line in enumerate(text.split("\n"), start=1)
            if line.strip() and not line.startswith("//")
        )
        self.number = 0

    def numbers(self, count: int, what: str) -> FloatArray:
        """The next line's numbers, which must be `count`."""
        self.number, line = next(self._lines, (self.number, ""))
        if not line:
            raise CertiflowError(f"line {self.number}: the file ends here; expected {what}")
        try:
            numbers = np.array([float_of(field) for field in line.strip().rstrip(",").split(",")])
        except ValueError as error:
            raise CertiflowError(f"line {self.number}: expected {what}: {error}") from error
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise CertiflowError(
                f"line {self.number}: expected {count} finite numbers, {what}; "
                f"found {np.isfinite(numbers).sum()}"
            )
        return numbers

    def sizes(self, count: int, what: str) -> list[int]:
        """The next line's numbers, which must be positive whole ones."""
        numbers = self.numbers(count, what)
        if (numbers < 1).any() or (numbers != numbers.round()).any():
            raise CertiflowError(f"line {self.number}: expected {what}: positive whole numbers")
        return [int(number) for number in numbers]


def _network(lines: _Lines) -> NnetNetwork:
    num_layers, num_inputs, num_outputs, _ = lines.sizes(
        4, "the numbers of layers, inputs and outputs, and the greatest layer"
    )
    widths = lines.sizes(num_layers + 1, "the layers' sizes")
    if (widths[0], widths[-1]) != (num_inputs, num_outputs):
        raise CertiflowError(
            f"line {lines.number}: the sizes run from {widths[0]} to {widths[-1]}, the line before "
            f"says {num_inputs} inputs and {num_outputs} outputs"
        )
    lines.numbers(1, "a flag that is no longer used")
    lower = lines.numbers(num_inputs, "the inputs' minima")
    upper = lines.numbers(num_inputs, "the inputs' maxima")
    means = lines.numbers(num_inputs + 1, "the means of the inputs and of the outputs")
    ranges = lines.numbers(num_inputs + 1, "the ranges of the inputs and of the outputs")
    if not ranges.all():
        raise CertiflowError(f"line {lines.number}: a range is 0; expected numbers to divide by")
    layers = tuple(_layer(lines, before, after) for before, after in pairwise(widths))
    return NnetNetwork(_denormalised(layers, means, ranges), ReluNetwork(layers), lower, upper)


def _layer(lines: _Lines, before: int, after: int) -> Affine:
    weight = [lines.numbers(before, "the weights of one unit") for _ in range(after)]
    bias = [lines.numbers(1, "the bias of one unit") for _ in range(after)]
    return Affine(np.array(weight), np.concatenate(bias))


def _denormalised(layers: tuple[Affine, ...], means: FloatArray, ranges: FloatArray) -> ReluNetwork:
    """The layers between `(x - mean) / range` and `y * range + mean`."""
    normalise = Affine(np.diag(1 / ranges[:-1]), -means[:-1] / ranges[:-1])
    outputs = len(layers[-1].bias)
    restore = Affine(ranges[-1] * np.eye(outputs), np.full(outputs, means[-1]))
    steps = [[layer] for layer in layers]
    steps[0].insert(0, normalise)
    steps[-1].append(restore)
    folded, roundings = zip(*map(_folded, steps), strict=True)
    return ReluNetwork(folded, roundings=roundings)


def _folded(steps: Sequence[Affine]) -> tuple[Affine, Roundings]:
    """The layer that takes the steps in turn."""
    layer, *others = steps
    absolute, own = layer.absolute, list(map(Roundings.of, steps))
    for step in others:
        layer, absolute = step.after(layer), step.absolute.after(absolute)
    return layer, Roundings(
        sum(each.count for each in own),
        prod(each.gain for each in own),
        absolute if others else None,
    )
