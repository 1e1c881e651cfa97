"""The stages of the workflow as Prefect tasks; `tasks.core` holds their numerics."""
