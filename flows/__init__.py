"""Flows that wire the stages together: from settings to a summary, a study, or a schedule served.

May import `flows.processes`, `tasks` and what lies before them; no command.
Guarantees: a flow reads as a list of stages; however it ends, its MLflow run says so where it can.
"""
