"""The `certiflow` command line: what is typed, and what the terminal shows.

May import flows, processes, tasks. Commands import what they run when they run it.
"""
