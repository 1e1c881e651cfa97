"""Errors a user can cause, each one line that names the value, the expectation and the remedy."""


class CertiflowError(Exception):
    """Shown to the user as one line, without a traceback; the command then exits with 1."""


class ContradictionError(CertiflowError):
    """A ball was proved robust and is also broken: a defect of certiflow, never a result."""
