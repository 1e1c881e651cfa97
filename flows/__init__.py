"""Flows that wire the tasks together; `command` and `processes` are what surrounds them."""
