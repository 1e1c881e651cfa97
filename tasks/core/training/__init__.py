"""Architectures, defences, and the loop that trains them: with its schedule and checkpoints.

May import `data`, `models`, `attacks` and what lies before them; no search, no verification.
Guarantees: the same seed and settings give the same weights; nothing here proves anything.
"""
