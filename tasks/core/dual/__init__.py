"""Lower bounds with free choices, which are optimised: of whole boxes, and of subproblems.

May import `bounds` and what lies before it.
Guarantees: a choice is made in float32 and may be any; what is returned of it is sound as `bounds`
are.
"""
