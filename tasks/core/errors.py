"""Errors a user can cause, each one line that names the value, the expectation and the remedy."""

from tasks.core.uris import without_passwords


class CertiflowError(Exception):
    """Shown to the user as one line, without a traceback; the command then exits with 1.

    The message may quote URIs, other libraries' messages and names in files: it never holds a URI's
    password, and what cannot be printed, such as line breaks and what turns the direction of
    writing, is a space.
    """

    def __init__(self, message: str) -> None:
        printed = "".join(each if each.isprintable() else " " for each in message)
        super().__init__(without_passwords(printed))


class ContradictionError(CertiflowError):
    """A ball was proved robust and is also broken: a defect of certiflow, never a result."""


def first_line(error: Exception) -> str:
    """Of another library's message, or the kind of error where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
