"""The stages of the workflow as Prefect tasks: one module a stage, thin around `tasks.core`.

May import `tasks.presentation`, `tasks.tracking` and `tasks.core`; no flow. `settings` and
`console` serve those two as well.
Guarantees: stages hand on files with their digests and small records, never arrays.
"""
