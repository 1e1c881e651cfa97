"""Where jobs run and answers stay: `asking` is the one loop over pool or cluster and store.

May import the modules of `tasks.core` itself; knows nothing of what is asked.
Guarantees: every job ends, within its time and memory, in an answer or a reason.
"""
