"""Properties of networks as files or objects state them, equivalence of two networks among them.

May import `verification` and what lies before it.
Guarantees: a counterexample holds in the deployed models, or the answer is none.
"""
