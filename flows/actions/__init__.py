"""What commands do once they are read: look first, then ask, and show what was found.

May import every package but `flows.command`, which imports it when a command runs.
Guarantees: what is wrong with settings, model or data is said before anything starts.
"""
