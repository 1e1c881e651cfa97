"""Evidence of a version, gathered from MLflow into a signed bundle, and audited.

May import `tasks.tracking`, `tasks.presentation`, the stages and `tasks.core`; `flows` imports it.
Guarantees: a bundle whose numbers are not those of its tables is not written; an audit says what it
checked, what differs, and what it could not check.
"""
