"""Signatures of mappings: Ed25519 (RFC 8032). Home signs; everybody can check with the home domain's public key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from followme.config.public_key import proves


class SigningError(Exception):
    """A key is not a key; the text holds none of it."""


class Signer(Protocol):
    def sign(self, data: bytes) -> bytes:
        """Sign in the name of the own domain."""

    def verify(self, domain: str, data: bytes, signature: bytes) -> bool:
        """Whether ``domain`` has signed ``data``; ``False`` also for a domain that is not known."""


class Ed25519Signer:
    """Keys are 32 octets each. Raises ``SigningError`` for others."""

    def __init__(self, private_key: bytes, public_keys: Mapping[str, bytes]) -> None:
        try:
            self._private = Ed25519PrivateKey.from_private_bytes(private_key)
        except ValueError:
            raise SigningError("the private key is not an Ed25519 key of 32 octets") from None
        self._public: dict[str, Ed25519PublicKey] = {}
        owners: dict[bytes, str] = {}
        for domain, key in public_keys.items():
            if (owner := owners.setdefault(bytes(key), domain)) != domain:
                raise SigningError(f"{owner} and {domain} have the same public key: each could speak for the other")
            if not proves(key):
                raise SigningError(f"the public key of {domain} is not an Ed25519 key that proves anything")
            self._public[domain] = Ed25519PublicKey.from_public_bytes(key)

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    def verify(self, domain: str, data: bytes, signature: bytes) -> bool:
        key = self._public.get(domain)
        if key is None or len(signature) != 64:
            return False
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def generate_key() -> tuple[bytes, bytes]:
    """A new domain's private and public key, 32 octets each."""
    private = Ed25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def public_key_of(private_key: bytes) -> bytes:
    """32 octets, of a private key of 32 octets."""
    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
