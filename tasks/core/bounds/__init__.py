"""Lower bounds over boxes: intervals, CROWN, forms carried forwards; roundings are covered.

May import `networks` and what lies before it.
Guarantees: sound over the reals for the float64 network, rounding included; not complete.
"""
