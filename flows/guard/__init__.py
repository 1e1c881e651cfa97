"""The guarded service: HTTP around `tasks.core.guard`, following a registered version.

May import `tasks`; the command line imports it, no flow does.
Guarantees: an accepted label is proved; a request is answered by one version; TensorFlow and
Prefect are never loaded in its process.
"""
