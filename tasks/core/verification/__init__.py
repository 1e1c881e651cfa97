"""Questions about one input at a time: local robustness, critical radii.

May import `search`, `execution` and what lies before them.
Guarantees: what is `falsified` breaks the deployed model; a contradiction stops the run.
"""
