"""What is compiled before a time limit runs, in a process of its own: others have compiled it."""

from __future__ import annotations

import subprocess
import sys

DECIDES = """
import numba.core.dispatcher as dispatcher
import numpy as np

compiled = []
compile_now = dispatcher.Dispatcher.compile
def watched(self, signature):
    compiled.append(f"{self.py_func.__name__}{signature}")
    return compile_now(self, signature)
dispatcher.Dispatcher.compile = watched

from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.ladder import decide, warm_up
from tests.networks import convolutional, random_network

warm_up()
before, decided_by = len(compiled), set()
generator = np.random.default_rng(0)
for _ in range(12):
    for network in (
        convolutional(generator, (20, 20), (8, 8), 20, 3),
        random_network(generator, (40, 30, 30, 3)),
    ):
        center = generator.uniform(size=(1, network.num_inputs))
        radius = generator.choice([0.02, 0.05, 0.1])
        box = Box(center - radius, center + radius)
        rows = generator.normal(size=(1, 3))
        offset = -(network(center) @ rows.T)[0] + generator.uniform(0.1, 0.5)
        prop = Property((UnsafeRegion(box, rows, offset),))
        answer = decide(network, prop, timeout_seconds=1, with_marabou=False)
        decided_by.add(answer.decided_by.value)
assert before
assert "branch_and_bound" in decided_by, decided_by
print("\\n".join(compiled[before:]))
"""


def test_nothing_is_compiled_while_a_limit_runs() -> None:
    command = [sys.executable, "-c", DECIDES]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""
