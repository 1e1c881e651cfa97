"""What ends a check."""


class RefusedError(Exception):
    """A file is damaged, speaks of another one, or holds what is not checked; says which."""


def needed(holds: object, otherwise: str) -> None:
    """Raises `RefusedError` with what is said otherwise."""
    if not holds:
        raise RefusedError(otherwise)
