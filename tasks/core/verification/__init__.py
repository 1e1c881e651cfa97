"""The questions that can be asked: local robustness, properties, critical radii, global robustness.

May import `search`, `execution` and what lies before them.
Guarantees: what is `falsified` breaks the deployed model; a contradiction stops the run.
"""
