"""What bounds have proved of the regions of one box, and of the network's units over it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.forward import forward_bounds
from tasks.core.bounds.linear import (
    Method,
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.bounds.relaxations import Bounds
from tasks.core.networks.matrices import DenseMatrix
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.answer import Known

FEW_INPUTS = 12  # up to which inputs are split instead of phases
FEW_OF_LARGE = 32  # the same of a large network, where one box costs as much as hundreds of phases


class BoxBounds:
    """Sound bounds that only get better.

    `network` loses the units that are found dead; `whole` and `whole_hidden` keep them, since in
    float32 they may be a little alive. `lower`, (regions,), is proved of each region's excess.
    `takes_forms` says whether few inputs are carried forwards before CROWN.
    """

    def __init__(
        self, network: ReluNetwork, regions: Sequence[UnsafeRegion], known: Known | None
    ) -> None:
        self.whole, self.network = network, network
        self.regions, self.box = list(regions), regions[0].box
        self.takes_forms = network.is_large or network.is_curved  # where they pay
        self.lower = np.full(len(regions), -np.inf) if known is None else known.lower.copy()
        self.hidden: list[Bounds] = []
        self.whole_hidden: list[Bounds] = []
        self.units = [np.arange(len(layer.bias)) for layer in network.layers[:-1]]
        self.has_crown = known is not None and known.hidden is not None
        if known is not None and known.hidden is not None:
            self.set_hidden(known.hidden)
            self._drop_dead_units()

    @property
    def num_split(self) -> int:
        """How many inputs a search on inputs has to split.

        Of a curved network those that the box does not fix, since its bounds fold the others.
        """
        free = (self.box.upper > self.box.lower).sum()
        return int(free) if self.network.is_curved else self.network.num_inputs

    @property
    def has_few_inputs(self) -> bool:
        """Whether halving boxes is worth more than splitting units."""
        is_slow = self.network.is_large and not self.network.is_curved
        return self.num_split <= (FEW_OF_LARGE if is_slow else FEW_INPUTS)

    @property
    def left(self) -> list[int]:
        """The places of the regions that are not excluded."""
        return [int(index) for index in np.flatnonzero(~(self.lower > 0))]

    @property
    def regions_left(self) -> list[UnsafeRegion]:
        """The regions that are not excluded."""
        return [self.regions[index] for index in self.left]

    @property
    def excludes_all(self) -> bool:
        """Whether no region is reached."""
        return bool((self.lower > 0).all())

    def bound_hidden(self, method: Method, deadline: float = np.inf) -> None:
        """Bounds the hidden layers, unless CROWN did already, and drops the units found dead."""
        if self.has_crown:
            return
        known = list[Bounds]()
        if method == "crown" and self.has_few_inputs and self.takes_forms:
            self.set_hidden(self.of_few_inputs())
            self._drop_dead_units(between_blocks=True)  # so many that blocks become smaller
            known = self.hidden
        self.set_hidden(preactivation_bounds(self.network, self.box, method, deadline, known))
        self._drop_dead_units()
        self.has_crown = method == "crown"

    def of_few_inputs(self) -> list[Bounds]:
        """Affine forms of the inputs that the box does not fix: soon, for any number of units."""
        free = self.box.upper[0] > self.box.lower[0]
        free[:1] |= not free.any()
        network = self.network.fixed(free, self.box.lower[0])
        return forward_bounds(network, Box(self.box.lower[:, free], self.box.upper[:, free]))

    def bound_regions(self, method: Method) -> None:
        """Bounds every row of the regions left, by the hidden bounds there are."""
        if self.excludes_all:  # as was known of one of several boxes
            return
        rows = np.concatenate([region.rows for region in self.regions_left])
        if method == "interval":
            bounds = interval_lower_bounds(self.network, rows, self.hidden, self.box)
        else:
            depth = len(self.network.layers) - 1
            bounds = linear_lower_bounds(self.network, depth, rows, self.hidden, self.box)
        left = self.left
        counts = [len(self.regions[index].rows) for index in left]
        for index, values in zip(left, np.split(bounds[0], np.cumsum(counts)[:-1]), strict=True):
            excess = values + self.regions[index].offsets
            excess = excess - np.abs(excess) * 2.0**-52  # the sum's own rounding
            self.lower[index] = max(self.lower[index], excess.max())  # the greatest row proves most

    def raise_lower(self, places: Sequence[int], lower: FloatArray) -> None:
        """With bounds on the excess of the regions at `places`."""
        self.lower[places] = np.maximum(self.lower[places], lower)

    def set_hidden(self, hidden: Sequence[Bounds]) -> None:
        """Bounds on the units that are left, and so on those of the whole network."""
        self.hidden = list(hidden)
        if not self.whole_hidden:
            self.whole_hidden = [Bounds(each.lower.copy(), each.upper.copy()) for each in hidden]
        for whole, units, bounds in zip(self.whole_hidden, self.units, hidden, strict=True):
            whole.lower[:, units], whole.upper[:, units] = bounds.lower, bounds.upper

    def float32_errors(self) -> FloatArray:
        """By how much the deployed model may be off on each region's rows, (regions,)."""
        rows = np.concatenate([region.rows for region in self.regions])
        errors = row_error(self.whole, rows, self.whole_hidden, self.box)[0]
        ends = np.cumsum([len(region.rows) for region in self.regions])
        return np.array([part.max() for part in np.split(errors, ends[:-1])])

    def goal(self) -> float:
        """The bound from which on a proof holds for the deployed model as well."""
        error = float(self.float32_errors().max())
        return error if np.isfinite(error) else 0.0

    def _drop_dead_units(self, *, between_blocks: bool = False) -> None:
        """Goes on with the network without the ReLUs that are zero in the whole box.

        There it is the same function, and after certified training much smaller. Those between
        blocks stay by default: without some of their rows these are no smaller, nor alike.
        """
        layers = self.network.layers
        in_blocks = [not isinstance(layer.matrix, DenseMatrix) for layer in layers]
        kept = [
            ~(bounds.upper[0] <= 0)
            | each.linear
            | each.curved
            | (not between_blocks and (in_blocks[depth] or in_blocks[depth + 1]))
            for depth, (bounds, each) in enumerate(
                zip(self.hidden, self.network.activations, strict=True)
            )
        ]
        for mask in kept:
            mask[:1] |= not mask.any()  # a layer of no units would be a shape for nobody
        self.network = self.network.restricted(kept)
        self.units = [units[mask] for units, mask in zip(self.units, kept, strict=True)]
        self.hidden = [bounds[:, mask] for bounds, mask in zip(self.hidden, kept, strict=True)]
