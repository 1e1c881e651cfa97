"""Sliding windows of convolutions and pooling, over any number of spatial axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tasks.core.arrays import IntArray
from tasks.core.errors import CertiflowError

Shape = tuple[int, ...]

MOST_ELEMENTS = 2**26  # of an array that attributes alone ask for


@dataclass(frozen=True)
class Window:
    """A convolution's or pooling's window, one number per spatial axis in each field."""

    extents: Shape
    strides: Shape
    dilations: Shape
    before: Shape
    after: Shape

    @classmethod
    def same(
        cls,
        sizes: Shape,
        extents: Shape,
        strides: Shape,
        dilations: Shape,
        odd_before: bool = False,
    ) -> Window:
        """Padded so that ceil(size / stride) windows fit; the odd row goes behind by default."""
        totals = [
            max((-(-size // stride) - 1) * stride + dilation * (extent - 1) + 1 - size, 0)
            for size, extent, stride, dilation in zip(
                sizes, extents, strides, dilations, strict=True
            )
        ]
        before = tuple((total + odd_before) // 2 for total in totals)
        after = tuple(total - first for total, first in zip(totals, before, strict=True))
        return cls(extents, strides, dilations, before, after)

    def rounded_up(self, sizes: Shape) -> Window:
        """With the padding behind that makes the last windows of `ceil_mode` fit."""
        after = tuple(
            behind + (dilation * (extent - 1) + 1 - size - before - behind) % stride
            for size, extent, stride, dilation, before, behind in self._axes(sizes)
        )
        return replace(self, after=after)

    def leaves_out(self, sizes: Shape) -> bool:
        """Whether the last windows end before the image does."""
        return any(
            (count - 1) * stride + dilation * (extent - 1) + 1 < size + before
            for (size, extent, stride, dilation, before, _), count in zip(
                self._axes(sizes), self.counts(sizes), strict=True
            )
        )

    def counts(self, sizes: Shape) -> Shape:
        """Windows along every axis of an image of these sizes."""
        counts = tuple(
            (size + before + after - dilation * (extent - 1) - 1) // stride + 1
            for size, extent, stride, dilation, before, after in self._axes(sizes)
        )
        if min(counts) < 1:
            raise CertiflowError(f"a window of {self.extents} does not fit an image of {sizes}")
        return counts

    def indices(self, sizes: Shape) -> IntArray:
        """Flat positions under every window, shape (windows, window size); -1 in the padding."""
        check_elements(prod(self.counts(sizes)) * prod(self.extents))
        flat = np.zeros((1, 1), dtype=np.int64)
        inside = np.ones((1, 1), dtype=bool)
        for (size, extent, stride, dilation, before, _), count in zip(
            self._axes(sizes), self.counts(sizes), strict=True
        ):
            starts = np.arange(count) * stride - before
            along = starts[:, None] + np.arange(extent) * dilation
            valid = (along >= 0) & (along < size)
            shape = (len(flat) * count, flat.shape[1] * extent)
            flat = (flat[:, None, :, None] * size + along[:, None, :]).reshape(shape)
            inside = (inside[:, None, :, None] & valid[:, None, :]).reshape(shape)
        return np.where(inside, flat, -1)

    def _axes(self, sizes: Shape) -> list[Shape]:
        return list(
            zip(
                sizes,
                self.extents,
                self.strides,
                self.dilations,
                self.before,
                self.after,
                strict=True,
            )
        )


def check_elements(count: int) -> None:
    """Refuses what would take gigabytes to write down."""
    if count > MOST_ELEMENTS:
        raise CertiflowError(
            f"asks for {count:,} elements: at most {MOST_ELEMENTS:,} are made; choose smaller "
            "pads, windows or shapes"
        )
