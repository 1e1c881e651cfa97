"""What a search leaves behind for a certificate: its splits, and what showed each exclusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tasks.core.dual.choices import Choices


@dataclass(frozen=True)
class Split:
    """By an input at a threshold, or a hidden unit at 0; the second child follows the first.

    `children` are x <= threshold and x >= threshold, or z >= 0 and z <= 0.
    """

    index: int
    threshold: float
    children: tuple[int, int]


@dataclass(eq=False)
class Record:
    """The tree of a search; its nodes are numbered as they come, each region's root first.

    Attributes:
        settled: what is kept of choices, of which bounds are computed.
        roots: a root for each region, or one for all.
        splits: of each node that was split.
        shown: of each node that was excluded the choices that did, None for bounds of its own box.
    """

    settled: Callable[[Choices], Choices] = lambda choices: choices
    roots: list[int] = field(default_factory=list)
    splits: dict[int, Split] = field(default_factory=dict)
    shown: dict[int, Choices | None] = field(default_factory=dict)
    count: int = 0

    def places(self, number: int) -> list[int]:
        """As many new nodes."""
        self.count += number
        return list(range(self.count - number, self.count))

    def split(
        self, places: Sequence[int], indices: Sequence[int], at: Sequence[float]
    ) -> list[int]:
        """Splits each node; returns the children, both of one after both of another."""
        children = self.places(2 * len(places))
        for order, (place, index, threshold) in enumerate(zip(places, indices, at, strict=True)):
            both = (children[2 * order], children[2 * order + 1])
            self.splits[place] = Split(int(index), float(threshold), both)
        return children

    def exclude(self, place: int, choices: Choices | None) -> None:
        """Of a node whose region has a bound above 0."""
        self.shown[place] = choices
