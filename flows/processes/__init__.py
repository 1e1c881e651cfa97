"""The processes around a flow: environment, Prefect's server, the guardian of children.

May import `tasks`; imports no flow and no command.
"""
