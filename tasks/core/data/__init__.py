"""Datasets by name or from a file: where they come from, what they hold, how far they drift.

May import `properties` and the modules of `tasks.core` itself.
Guarantees: a dataset by name has the content that was pinned; images are float32 in [0, 1]; every
row of a table lies in its schema's domain, but for relations; no pickle is ever read.
"""
