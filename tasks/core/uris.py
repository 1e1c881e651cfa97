"""URIs without user info and passwords: these must not leave the process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

# What stands before the last @ of a host; or, as SQLAlchemy reads it, a password with a slash; or
# user and password where a path has lost the second slash.
USER_INFO = re.compile(
    r"""(?<=://)
    (?: [^\s/?#"<>]*
      | (?!\[) [^\s/?#:@"<>]* : (?!\d+[/?#]) (?: (?!://) [^\s@"<>] )*
    ) @
    | (?<=\w:/) [^\s/?#:@"<>]+ : [^\s/?#"<>]* @""",
    re.VERBOSE,
)

PARAMETER = re.compile(
    r"""([?&][\w-]*(?:password|passwd|pwd|token|secret|signature)=)[^&#\s"<>]*""", re.IGNORECASE
)


@dataclass(frozen=True)
class Credentials:
    """A user and a password, as they are meant: not percent-encoded."""

    user: str
    password: str


def without_passwords(text: str) -> str:
    """The text, a URI or one that quotes some, without the user info of any URI in it.

    A password or token among a URI's parameters becomes dots.
    """
    return PARAMETER.sub(r"\1...", USER_INFO.sub("", text))


def parted(uri: str) -> tuple[str, Credentials | None]:
    """A URI without its user info, and that user info, if it has any."""
    try:
        user_info, found, _ = urlsplit(uri).netloc.rpartition("@")
    except ValueError:  # brackets that do not close: who uses the URI will say so
        return uri, None
    user, _, password = user_info.partition(":")
    credentials = Credentials(unquote(user), unquote(password)) if found else None
    return USER_INFO.sub("", uri), credentials
