"""What an attacker may do to an input: a box around it, or one for each choice of categories."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from math import prod
from typing import Literal

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray, Inputs, IntArray
from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain

Scale = Literal["range", "std", "absolute"]
PIXELS = "pixels in [0, 1]"
UNITS: dict[Scale, str] = {
    "range": "share of each feature's range",
    "std": "standard deviations of each feature",
    "absolute": "each feature's own units",
}
ROUNDING = 2.0**-40  # of a reach: 0.29 times 100 is a little less than 29 in float64


@dataclass(frozen=True, eq=False)
class Perturbation:
    """At radius epsilon each input moves by at most epsilon times `down` and `up`, in the domain.

    Of categories at most `most_changes` may become others, at any radius above 0. Pixels of images
    move by epsilon both ways: the L-infinity ball.

    Attributes:
        scales: of all numbers, mutable or not, in the inputs' own units, (inputs,), or one for all
            pixels; 0 of categories.
        down, up: what an attacker can make of that, likewise; 0: it stays.
        unit: what epsilon is told in.
    """

    domain: Domain
    scales: FloatArray
    down: FloatArray
    up: FloatArray
    most_changes: int = 0
    unit: str = PIXELS

    @classmethod
    def of_images(cls, shape: tuple[int, ...]) -> Perturbation:
        """Every pixel by epsilon."""
        return cls(Domain(shape), np.ones(1), np.ones(1), np.ones(1))

    @classmethod
    def of_table(
        cls,
        domain: Domain,
        train_inputs: Inputs,
        scale: Scale = "range",
        most_changes: int = 0,
    ) -> Perturbation:
        """Each feature by epsilon times its own scale, or its range or deviation in training data.

        `absolute` has all features move by epsilon in their own units.

        Raises:
            CertiflowError: nothing can move.
        """
        rows = train_inputs.reshape(len(train_inputs), -1).astype(np.float64)
        measured = np.ones(rows.shape[1])
        if scale == "range":
            measured = rows.max(axis=0) - rows.min(axis=0)
        elif scale == "std":
            measured = rows.std(axis=0)
        own = [np.nan if each.scale is None else each.scale for each in domain.features]
        stated = domain.by_column(own, default=np.nan)
        scales = np.where(np.isnan(stated), measured, stated)
        kinds = [each.kind for each in domain.features]
        scales *= domain.by_column(kinds, default="real") != "category"
        moves = scales * domain.by_column([each.mutable for each in domain.features], default=True)
        only = domain.by_column([each.direction for each in domain.features], default="both")
        down, up = moves * (only != "up"), moves * (only != "down")
        perturbation = cls(domain, scales, down, up, most_changes, UNITS[scale])
        if not (down.any() or up.any() or perturbation.changeable):
            raise CertiflowError(
                "no feature can change: an attacker has nothing to do; set mutable: true for those "
                "that can, in the schema"
            )
        return perturbation

    @cached_property
    def reach(self) -> Float32Array:
        """How far each input moves at epsilon 1, the farther way, of one input's shape."""
        farther = np.broadcast_to(np.maximum(self.down, self.up), self.domain.num_inputs)
        return farther.reshape(self.domain.shape).astype(np.float32)

    @cached_property
    def sha256(self) -> str:
        """Digest of all that says which inputs lie in a ball."""
        digest = hashlib.sha256(f"{self.most_changes} {self.domain.words()} ".encode())
        for array in (self.down, self.up, self.domain.lower, self.domain.upper):
            digest.update(array.tobytes())
        for columns in self.changeable:
            digest.update(repr(columns).encode())
        return digest.hexdigest()

    @property
    def changeable(self) -> tuple[slice, ...]:
        """The one-hot columns of the categories that may become others."""
        groups = self.domain.groups if self.most_changes else ()
        return tuple(columns for feature, columns in groups if feature.mutable)

    def both_ways(self) -> Perturbation:
        """As far down as up: an input and what was made of it lie in each other's balls."""
        farther = np.maximum(self.down, self.up)
        return replace(self, down=farther, up=farther)

    def box(self, centers: Inputs | FloatArray, epsilon: float) -> Box:
        """The boxes around centers, (n, …), of the domain; categories stay as they are there.

        Raises:
            CertiflowError: a center is out of bounds, or not whole: of an empty box all is true.
        """
        return self._box(centers, epsilon * self.down, epsilon * self.up)

    def neighbourhood(self, centers: Inputs | FloatArray, radius: float) -> Box:
        """As `box`, but of all inputs like the centers: what nobody can change differs as well."""
        return self._box(centers, radius * self.scales, radius * self.scales)

    def _box(self, centers: Inputs | FloatArray, down: FloatArray, up: FloatArray) -> Box:
        points = np.asarray(centers, dtype=np.float64).reshape(len(centers), -1)
        domain = self.domain
        lower, upper = points - down, points + up
        if domain.whole.any():
            lower = np.where(domain.whole, np.ceil(lower - ROUNDING * down), lower)
            upper = np.where(domain.whole, np.floor(upper + ROUNDING * up), upper)
        lower, upper = np.maximum(lower, domain.lower), np.minimum(upper, domain.upper)
        if not (lower <= upper).all():
            row, place = np.argwhere(~(lower <= upper))[0]
            whole = "a whole number " if domain.whole.any() and domain.whole[place] else ""
            least, most = (
                np.broadcast_to(bound, domain.num_inputs)[place]
                for bound in (domain.lower, domain.upper)
            )
            raise CertiflowError(
                f"{domain.noun} {row}: input {place} is {points[row, place]:.9g}: expected {whole}"
                f"within {least:.9g} to {most:.9g}; correct the data, or the schema"
            )
        return Box(lower, upper)

    def float32_bounds(self, centers: Inputs, epsilon: float) -> tuple[Float32Array, Float32Array]:
        """Float32 bounds within `box`, of the centers' shape."""
        if self.domain.is_table:
            lower, upper = self.box(centers, epsilon).float32_bounds()
            return lower.reshape(centers.shape), upper.reshape(centers.shape)
        # Rounding the radius and the sum err by at most 2^-26 + 2^-25 < 2^-24.
        radius = np.float32(max(epsilon - 2.0**-24, 0.0))
        return np.maximum(centers - radius, 0), np.minimum(centers + radius, 1)

    def distance(self, center: Inputs | FloatArray, points: FloatArray) -> FloatArray:
        """The least epsilon at which each of the points, (n, inputs), is reached, rounded up.

        Infinite for points that no epsilon reaches; the choice of categories costs nothing.
        """
        change = points - np.asarray(center, dtype=np.float64).reshape(-1)
        for columns in self.changeable:
            change[:, columns] = 0
        moves = np.where(change < 0, self.down, self.up)
        still = np.where(change == 0, 0.0, np.inf)
        needed = np.divide(np.abs(change), moves, out=still, where=moves > 0).max(axis=1)
        # the difference of two float32 numbers and the division err by half an ulp each
        return np.where(needed > 0, np.nextafter(np.nextafter(needed, np.inf), np.inf), 0.0)

    def alternatives(self, centers: Inputs, epsilon: float) -> tuple[Inputs, IntArray]:
        """The centers with every choice of categories, and which center each is of, ascending.

        The first of each is the center itself.
        """
        rows = np.arange(len(centers), dtype=np.int64)
        if epsilon == 0 or not self.changeable:
            return centers, rows
        found = [np.stack([center, *self._changed(center)]) for center in centers]
        return np.concatenate(found), np.repeat(rows, [len(each) for each in found])

    @property
    def most_alternatives(self) -> int:
        """How many boxes a ball has: 1, and one for each other choice of categories."""
        others = [columns.stop - columns.start - 1 for columns in self.changeable]
        return 1 + sum(
            prod(chosen)
            for count in range(1, self.most_changes + 1)
            for chosen in combinations(others, count)
        )

    def boxes(self, inputs: Inputs, epsilon: float) -> tuple[Box, IntArray]:
        """The boxes of all alternatives, and which of the inputs each is of, ascending."""
        centers, owners = self.alternatives(inputs, epsilon)
        return self.box(centers, epsilon), owners

    def _changed(self, center: Inputs) -> Iterator[Inputs]:
        for count in range(1, self.most_changes + 1):
            for groups in combinations(self.changeable, count):
                others = [np.flatnonzero(center[group] == 0) + group.start for group in groups]
                for chosen in product(*others):
                    changed = center.copy()
                    for group, column in zip(groups, chosen, strict=True):
                        changed[group] = 0
                        changed[column] = 1
                    yield changed
