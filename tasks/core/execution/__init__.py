"""Where jobs run and answers stay: `asking` is the one loop over pool or cluster and store.

Knows nothing of what is asked; imports the modules of `tasks.core` itself.
Guarantees: every job ends, within its time and memory, in an answer or a reason.
"""
