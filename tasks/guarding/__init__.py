"""What a version is guarded by: its files, its evaluation, a service's settings and alarms.

May import `tasks`, its other packages and the core; flows and the service import it.
Guarantees: settings refuse what they do not know; a version that cannot be guarded says why.
"""
