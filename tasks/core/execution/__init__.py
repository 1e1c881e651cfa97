"""Where jobs run and answers stay: processes, a Dask cluster, the store of verdicts.

May import the modules of `tasks.core` itself; knows nothing of what is asked.
Guarantees: every job ends, within its time and memory, in an answer or a reason.
"""
