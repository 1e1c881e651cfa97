"""The project's own key, which signs where none is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks import console
from tasks.core.bundle import keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OWN_KEY, OWN_PUBLIC = Path("evidence.key.pem"), Path("evidence.pub.pem")


def own_key() -> Ed25519PrivateKey:
    """The key in the project's folder, made where there is none, and said so.

    Raises:
        CertiflowError: it cannot be read, or made.
    """
    if OWN_KEY.is_file():
        return keys.read_private(OWN_KEY)
    key = keys.made(OWN_KEY)
    OWN_PUBLIC.write_bytes(keys.pem_of(key.public_key()))
    console.warn(
        f"a new key signs this evidence: {OWN_KEY.absolute()}, which nobody else can read. Keep "
        f"it safe and out of version control, and hand {OWN_PUBLIC} to those who audit"
    )
    return key
