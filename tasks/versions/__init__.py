"""Which version is champion, and what later data and versions are held against.

May import `tasks`, `tasks/tracking`, `tasks/presentation` and the core; flows import it.
Guarantees: a decision is recorded with its reason; two that decide at once take turns.
"""
