"""The float64 `ReluNetwork` that proofs speak about: its matrices, its activations.

May import the modules of `tasks.core` itself.
Guarantees: a network is the function that its graph was said to compute, over the reals.
"""
