"""Architectures, defences, and the loop that trains them, with its checkpoints.

May import `bounds`, `models`, `attacks`, `data` and what lies before them.
Guarantees: the same seed and settings give the same weights; nothing here proves anything.
"""
