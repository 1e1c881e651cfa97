"""Evidence that is handed on: one signed archive, and what is found when it is checked again.

May import every other package of the core; `tasks` and `flows` import it.
Guarantees: what is read back is, to the byte, what was written; a check that could not be made is
told as such, never as passed; nothing here knows MLflow or Prefect.
"""
