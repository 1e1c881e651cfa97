"""Lower bounds over boxes: intervals, CROWN, optimised duals, and what rounding does to them.

May import `networks` and what lies before it.
Guarantees: sound over the reals for the float64 network, rounding included; not complete.
"""
