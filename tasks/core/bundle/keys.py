"""Ed25519 keys in PEM files: who signs evidence, and by which key that is checked."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tasks.core.errors import CertiflowError
from tasks.core.files import sha256_of

HOW = "`openssl genpkey -algorithm ed25519 -out key.pem` makes one"
WRONG = (ValueError, TypeError, UnsupportedAlgorithm)


def made(path: Path) -> Ed25519PrivateKey:
    """A new private key, kept in a file that nobody else can read, which must not be there yet.

    Raises:
        CertiflowError: it is there, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise CertiflowError(
            f"{path}: {error.strerror}: no key can be kept there; name one of yours with --key"
        ) from error
    return key


def read_private(path: Path) -> Ed25519PrivateKey:
    """Raises `CertiflowError` unless the file holds an Ed25519 key (PKCS8 in PEM, no password)."""
    try:
        key = serialization.load_pem_private_key(_content(path), password=None)
    except WRONG as error:
        raise CertiflowError(
            f"{path}: no private key in PEM without a password; expected an Ed25519 key: {HOW}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CertiflowError(f"{path}: another kind of key; expected Ed25519: {HOW}")
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """Raises `CertiflowError` unless the file holds an Ed25519 public key in PEM."""
    return public_of(_content(path), str(path))


def public_of(pem: bytes, name: str) -> Ed25519PublicKey:
    """The public key in a PEM text; `name` is what errors call it."""
    try:
        key = serialization.load_pem_public_key(pem)
    except WRONG as error:
        raise CertiflowError(
            f"{name}: no public key in PEM; expected that of an Ed25519 key: `openssl pkey -in "
            "key.pem -pubout` prints it"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise CertiflowError(f"{name}: another kind of key; expected Ed25519")
    return key


def pem_of(key: Ed25519PublicKey) -> bytes:
    """The public key as a PEM text."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_id(key: Ed25519PublicKey) -> str:
    """The key's name in signatures: SHA-256 of its DER form."""
    return sha256_of(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertiflowError(f"{path}: {error.strerror}; give the path of a key") from error
