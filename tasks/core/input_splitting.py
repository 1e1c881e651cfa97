"""Branch and bound on the inputs, for networks with few of them (ACAS Xu has five)."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence

import numpy as np

from tasks.core.bounds import preactivation_bounds, rounding_scales
from tasks.core.box_kernel import bound_boxes
from tasks.core.network import ReluNetwork
from tasks.core.specification import LinfBall, UnsafeRegion

BATCH = 256

class InputSearch:
    def __init__(self, network, box, regions):
        self.network, self.box, self.regions = network, box, regions
        depth = len(network.layers)
        widths = [network.num_inputs, *(len(a.bias) for a in network.layers)]
        w = max(widths)
        self.weights = np.zeros((depth, w, w)); self.biases = np.zeros((depth, w))
        for k, a in enumerate(network.layers):
            self.weights[k, :a.weight.shape[0], :a.weight.shape[1]] = a.weight
            self.biases[k, :len(a.bias)] = a.bias
        self.widths = np.array(widths)
        hidden = preactivation_bounds(network, box, "crown")
        sc = rounding_scales(network, depth - 1, hidden, box)
        self.linear = np.zeros((max(depth-1,1), w), bool); self.rs = np.zeros((max(depth-1,1), w)); self.as_ = np.zeros((depth, w))
        for k in range(depth-1):
            self.linear[k,:widths[k+1]] = network.linear[k]; self.rs[k,:widths[k+1]] = sc.relu[k][0]
        for k in range(depth): self.as_[k,:widths[k+1]] = sc.affine[k][0]
        self.ins = sc.inputs[0]
        self.rows = np.concatenate([r.rows for r in regions]); self.offsets = np.concatenate([r.offsets for r in regions])
        self.reg = np.repeat(np.arange(len(regions)), [len(r.rows) for r in regions])
        self.phase0 = np.zeros((1,)+self.linear.shape, np.int8)
        for k in range(depth-1):
            self.phase0[0,k,:widths[k+1]] = np.where(hidden[k].lower[0]>=0,1,np.where(hidden[k].upper[0]<=0,-1,0))
            self.phase0[0,k,:widths[k+1]][network.linear[k]]=1
        self.domains=0

    def bound(self, lower, upper, phases, alive):
        n = len(lower)
        out = np.empty(n), np.zeros(n, np.int64), np.zeros((n, lower.shape[1]))
        bound_boxes(self.weights, self.biases, self.widths, self.linear, self.as_, self.rs, self.ins, self.rows, self.offsets, self.reg, lower, upper, phases, alive, *out)
        self.domains += n
        return out

    def run(self, deadline):
        lower, upper = self.box.lower.copy(), self.box.upper.copy()
        phases, alive = self.phase0.copy(), np.ones((1, len(self.regions)), bool)
        heap=[]; count=0
        while True:
            low, split, point = self.bound(lower, upper, phases, alive)
            open_ = np.flatnonzero(low < np.inf)
            if len(open_):
                pts = np.clip(np.concatenate([point[open_], (lower[open_]+upper[open_])/2]), self.box.lower, self.box.upper)
                out = self.network(pts)
                for r in self.regions:
                    ex = r.excess(out)
                    if ex.min() <= 0: return 'sat', pts[ex.argmin()]
            for i in open_:
                count += 1
                heapq.heappush(heap, (low[i], count, lower[i], upper[i], phases[i], alive[i], split[i]))
            if not heap: return 'proved', None
            if time.monotonic() > deadline: return 'open', None
            batch = [heapq.heappop(heap) for _ in range(min(BATCH, len(heap)))]
            lower = np.repeat(np.stack([b[2] for b in batch]), 2, axis=0); upper = np.repeat(np.stack([b[3] for b in batch]), 2, axis=0)
            phases = np.repeat(np.stack([b[4] for b in batch]), 2, axis=0); alive = np.repeat(np.stack([b[5] for b in batch]), 2, axis=0)
            s = np.array([b[6] for b in batch]); idx = np.arange(len(batch))
            mid = (lower[0::2][idx, s] + upper[0::2][idx, s]) / 2
            upper[2*idx, s] = mid; lower[2*idx+1, s] = mid
