"""Questions about two inputs at once: monotone and fair features, global robustness.

May import `queries` and what lies before it; of the core, nothing imports it.
Guarantees: what is proved holds for every pair; a pair that breaks it is valid, and does so on the
deployed model.
"""
