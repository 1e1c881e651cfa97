"""The signature: a DSSE envelope (github.com/secure-systems-lab/dsse) around an in-toto statement.

What is signed is the payload with its type and both lengths, so that no other text has the same
signature.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tasks.core.bundle.keys import key_id
from tasks.core.errors import CertiflowError

PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Envelope:
    """A payload with one signature; `key_id` names the key, which shows nothing by itself."""

    payload: bytes
    signature: bytes
    key_id: str

    @classmethod
    def signed(cls, payload: bytes, key: Ed25519PrivateKey) -> Envelope:
        """The payload signed with a key."""
        return cls(payload, key.sign(_encoded(payload)), key_id(key.public_key()))

    @classmethod
    def parsed(cls, content: bytes, name: str) -> Envelope:
        """From its JSON text, which has one form only.

        Raises:
            CertiflowError: names the file `name`, which holds another thing.
        """
        try:
            found = json.loads(content)
            (signature,) = found["signatures"]
            if found["payloadType"] != PAYLOAD_TYPE:
                raise ValueError(f"its payload is {found['payloadType']}")
            envelope = cls(
                base64.b64decode(found["payload"], validate=True),
                base64.b64decode(signature["sig"], validate=True),
                str(signature["keyid"]),
            )
            if envelope.text != content:
                raise ValueError("its text is another than certiflow writes")
        except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
            raise CertiflowError(
                f"{name}: no DSSE envelope with one signature of {PAYLOAD_TYPE} ({error})"
            ) from error
        return envelope

    @property
    def text(self) -> bytes:
        """The envelope as JSON."""
        found: dict[str, Any] = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": self.key_id, "sig": base64.b64encode(self.signature).decode()}
            ],
        }
        return json.dumps(found, indent=1, sort_keys=True).encode() + b"\n"

    def is_by(self, key: Ed25519PublicKey) -> bool:
        """Whether the key's owner signed this payload."""
        try:
            key.verify(self.signature, _encoded(self.payload))
        except InvalidSignature:
            return False
        return self.key_id == key_id(key)


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
