"""Where jobs run and answers stay: processes, a Dask cluster, the store of verdicts.

Knows nothing of what is asked; imports the modules of `tasks.core` itself.
Guarantees: every job ends, within its time and memory, in an answer or a reason.
"""
