"""The guarded service: HTTP around `tasks.core.guard`, following a registered version.

May import `tasks`; no flow imports it. TensorFlow and Prefect are never loaded in its process.
"""
