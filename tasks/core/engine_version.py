"""The engine's version, which follows its code: stored verdicts never outlive a change of it."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

NUMBER = 4  # for people: larger after every change that they should know of

# All modules that a verdict, its margin or its time depends on; a test holds them complete.
SOURCES = (
    "agreement",
    "attacks",
    "ball_jobs",
    "ball_records",
    "ball_sample",
    "bisection",
    "bounds",
    "box_kernel",
    "branch_and_bound",
    "choices",
    "critical_radius",
    "cross_checks",
    "difference_search",
    "dual_bounds",
    "falsification",
    "float32_error",
    "global_robustness",
    "input_planes",
    "input_splitting",
    "keras_network",
    "ladder",
    "linear_relations",
    "lowering",
    "marabou",
    "matrices",
    "models",
    "network",
    "nnet_network",
    "numerals",
    "onnx_images",
    "onnx_network",
    "onnx_node",
    "onnx_operators",
    "outcome",
    "property_verification",
    "radius_search",
    "replay",
    "s_expressions",
    "specification",
    "tightening",
    "twin_network",
    "verification",
    "verdicts",
    "vnnlib",
    "windows",
)
LIBRARIES = ("keras", "maraboupy", "numba", "numpy", "onnx", "onnxruntime", "scipy", "tensorflow")


def _digest() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(f"{name}\n".encode())
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()


ENGINE_VERSION = f"{NUMBER}-{_digest()[:16]}"
