"""Datasets by name or from files, checked against pinned hashes, and what a drift of them is.

May be imported by every package after it; itself imports the modules above it alone.
Guarantees: what is loaded has the content that was pinned, images float32 in [0, 1].
"""
