"""Searches for counterexamples: gradients of the deployed model, descent on the network.

May import `models` and what lies before it.
Guarantees: every point lies inside its box; that none is found proves nothing.
"""
