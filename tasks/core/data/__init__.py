"""Datasets as they are used: images, or a table's rows in the domain of its schema; their drift.

May import `properties` and the modules of `tasks.core` itself.
Guarantees: images are float32 in [0, 1]; every row of a table lies in its schema's domain, but for
relations; no pickle is ever read.
"""
