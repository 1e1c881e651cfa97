"""The arrays that pass between functions, each under one name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Float32Array = NDArray[np.float32]

Inputs = Float32Array  # (n, *shape), as the model takes them
Mask = BoolArray  # (n,), one answer for each point
