"""How models end: with logits, or with probabilities, of which the logits before them are read.

Over the reals a softmax keeps the order of its inputs and every tie, and a sigmoid exceeds 1/2
exactly where its input is positive: so a label is proved by its logits. In float32 both round:
probabilities are equal also where logits differ by less than about 2^-23, and a sigmoid is 1/2 for
inputs up to about 2^-24. Then the deployed model decides by the order of its classes. So the logits
count as wrong by `GAP` besides their own rounding: a proof whose margin exceeds that holds for the
deployed probabilities too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor

Ending = Literal["logits", "softmax", "log_softmax", "logistic", "sigmoid"]

# exp(-2^-20) is sixteen float32 numbers below 1: more than exp, a sum and a division round off.
GAP = 2.0**-20
UNIT_ROUNDOFF = 2.0**-24  # of float32

THRESHOLD = 0.5  # a sigmoid decides for label 1 above it
LEAST = np.float32(2.0**-126)  # a logit that has a sign and no size


def decided(lowering: Lowering, logits: Tensor, ending: Ending) -> Tensor:
    """The logits that stand for the ending's decision, one for each class.

    Of a sigmoid these are (0, z): label 1 wins exactly where z > 0.
    """
    if ending == "logits":
        return logits
    roundings = max(logits.roundings, 1)
    gap = GAP / (UNIT_ROUNDOFF * roundings)  # what `roundings` roundings turn into the gap itself
    inexact = replace(logits, offset=logits.offset + gap, roundings=roundings)
    if ending != "sigmoid":
        return inexact
    both = lowering.stacked([lowering.constant([0.0]), inexact])
    return both.taken(both.positions.reshape(1, -1))
