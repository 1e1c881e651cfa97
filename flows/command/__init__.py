"""The `certiflow` command line: what is typed, and what the terminal shows.

May import every package, and imports what a command runs when it runs it; nothing imports it.
Guarantees: exit code 0 is done, 1 could not (one line says why), 2 wrong usage; no traceback.
"""
