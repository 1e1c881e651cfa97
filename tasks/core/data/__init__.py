"""Datasets by name or from a file: where they come from, what they hold, how far they drift.

May import the modules of `tasks.core` itself, and `properties`.
Guarantees: a dataset by name has the content that was pinned; images are float32 in [0, 1].
"""
