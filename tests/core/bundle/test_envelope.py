"""Signatures: of this payload, by this key, in one form."""

from __future__ import annotations

import base64
import json
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tasks.core.bundle import keys
from tasks.core.bundle.envelope import PAYLOAD_TYPE, Envelope
from tasks.core.errors import CertiflowError

PAYLOAD = b'{"a": 1}'
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def test_it_is_by_whoever_signed_it_and_nobody_else() -> None:
    envelope = Envelope.parsed(Envelope.signed(PAYLOAD, KEY).text, "e")
    assert envelope.payload == PAYLOAD
    assert envelope.is_by(KEY.public_key())
    assert not envelope.is_by(Ed25519PrivateKey.generate().public_key())


def test_what_is_signed_is_as_the_dsse_protocol_says() -> None:
    """Written out from the protocol's text: DSSEv1, then length and words of type and payload."""
    signature = Envelope.signed(PAYLOAD, KEY).signature
    words = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(PAYLOAD)} ".encode() + PAYLOAD
    assert KEY.sign(words) == signature  # Ed25519 has one signature for a key and a text


def test_every_changed_byte_of_the_envelope_is_found() -> None:
    text, public = Envelope.signed(PAYLOAD, KEY).text, KEY.public_key()
    for place in range(len(text)):
        changed = text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]
        with suppress(CertiflowError):
            assert not Envelope.parsed(changed, "e").is_by(public)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b'{"signatures": []}', b"\xff", b"[" * 100_000],
)
def test_what_is_no_envelope_is_refused(content: bytes) -> None:
    with pytest.raises(CertiflowError, match="no DSSE envelope"):
        Envelope.parsed(content, "e")


def test_a_second_signature_or_another_type_is_refused() -> None:
    found = json.loads(Envelope.signed(PAYLOAD, KEY).text)
    twice = found | {"signatures": found["signatures"] * 2}
    other = found | {"payloadType": "text/plain"}
    noise = found | {"payload": base64.b64encode(PAYLOAD).decode() + "\n"}
    for wrong in (twice, other, noise):
        with pytest.raises(CertiflowError, match="no DSSE envelope"):
            Envelope.parsed(json.dumps(wrong, indent=1, sort_keys=True).encode(), "e")


def test_a_new_key_is_private_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    before = os.umask(0)
    try:
        made = keys.made(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.key_id(keys.read_private(path).public_key()) == keys.key_id(made.public_key())
    with pytest.raises(CertiflowError, match="File exists"):
        keys.made(path)


def test_public_keys_come_back(tmp_path: Path) -> None:
    path = tmp_path / "public.pem"
    path.write_bytes(keys.pem_of(KEY.public_key()))
    assert Envelope.signed(PAYLOAD, KEY).is_by(keys.read_public(path))


def test_other_files_are_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    for content in (b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        path.write_bytes(content)
        with pytest.raises(CertiflowError, match="openssl genpkey"):
            keys.read_private(path)
        with pytest.raises(CertiflowError, match="no public key"):
            keys.read_public(path)
    other = generate_private_key(SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(other.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    with pytest.raises(CertiflowError, match="expected Ed25519"):
        keys.read_private(path)
    password = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(KEY.private_bytes(pem, pkcs8, password))
    with pytest.raises(CertiflowError, match="without a password"):
        keys.read_private(path)
    with pytest.raises(CertiflowError, match="give the path"):
        keys.read_private(tmp_path / "none.pem")
