"""Names from elsewhere, of classes, features and files, as figures and pages show them."""

from __future__ import annotations

LENGTH = 80  # characters


def one_line(text: str, length: int = LENGTH) -> str:
    """The text on one line of at most so many characters, without what is not seen.

    Control characters, and those that turn the direction of what follows, become spaces.
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= length else f"{words[: length - 1]}…"
