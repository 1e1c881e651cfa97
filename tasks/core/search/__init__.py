"""From bounds to a verdict on one property: branch and bound, Marabou's witness, the ladder.

May import `attacks`, `dual` and what lies before them.
Guarantees: `robust` is proved over the reals; `falsified` has a point that still needs its replay.
"""
