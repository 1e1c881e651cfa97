"""Damaged files, which every reader reads or refuses in a line."""
