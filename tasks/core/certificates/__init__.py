"""Certificates: what makes a proof checkable by one pass, found once more and written to a file.

May import `bounds`, `search`, `networks`, `properties`, `readers`, `execution` and the checker's
formats (`tasks.checker`), which imports nothing of here. Guarantees: what is called certified has
been checked by `tasks.checker` from the file, in float64 with rounding covered.
"""
