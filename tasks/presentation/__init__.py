"""What people are told: records of runs, versions compared, and the texts and pages of both.

May import `tasks.tracking`, `tasks.settings`, `tasks.console` and `tasks.core`; no stage.
Guarantees: a comparison has the same rows, formats and marks in every medium; what is not known is
told as such.
"""
