"""Flows that wire the tasks together, and the `certiflow` command line."""
