"""Linear bounds over a whole test set: on all cores, since each batch is bounded by itself."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tasks.core.arrays import BoolArray, Inputs, IntArray
from tasks.core.bounds import linear
from tasks.core.networks.blocks import one_thread
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.perturbation import Perturbation

BATCH = 250  # points: of a small convolutional network the tables of so many take 80 MB


def certified(
    network: ReluNetwork,
    inputs: Inputs,
    labels: IntArray,
    perturbation: Perturbation,
    epsilon: float,
) -> BoolArray:
    """Whether linear bounds prove each point's ball, all of its boxes: (n,). Sound, not complete.

    In threads: NumPy, BLAS and the compiled kernels let go of Python's lock.
    """

    def proved(start: int) -> BoolArray:
        some = slice(start, start + BATCH)
        boxes, owners = perturbation.boxes(inputs[some], epsilon)
        found = linear.certified(network, boxes, labels[some][owners])
        return np.bincount(owners[~found], minlength=len(labels[some])) == 0

    starts = range(0, len(inputs), BATCH)
    with one_thread(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return np.concatenate([np.zeros(0, dtype=bool), *pool.map(proved, starts)])
