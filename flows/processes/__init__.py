"""The processes around a flow: environment, Prefect's server, the guardian of children.

May import `tasks` and what lies before it; no flow, no command.
Guarantees: no process outlives the command that started it, even one that was killed.
"""
