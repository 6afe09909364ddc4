"""DKIM signatures on what we send (RFC 6376), with an RSA key."""

from __future__ import annotations

import asyncio

import dkim
from dkim.crypto import UnparsableKeyError, parse_pem_private_key

KEY_BITS_MIN = 1024  # RFC 8301 3.2: a verifier may refuse less

# Signed once more than they occur, absent ones too, so that nobody can add one to a signed mail (RFC 6376 8.15).
_FROZEN = (
    *(b"from", b"to", b"cc", b"reply-to", b"subject", b"date", b"message-id", b"in-reply-to", b"references"),
    *(b"mime-version", b"content-type", b"content-transfer-encoding", b"content-disposition"),
)


class DkimKeyRefused(ValueError):
    """This key cannot sign mail."""


class DkimSigner:
    """Signs for one domain and selector. Raises DkimKeyRefused for a key that is no RSA private key in PEM."""

    def __init__(self, key_pem: bytes, selector: str, domain: str) -> None:
        try:
            key = parse_pem_private_key(key_pem)
        except (UnparsableKeyError, ValueError, TypeError, IndexError, KeyError) as error:
            raise DkimKeyRefused(
                f"The DKIM key of {domain} is not an RSA private key in PEM: make one with `openssl genrsa 2048`."
            ) from error
        if int(key["modulus"]).bit_length() < KEY_BITS_MIN:
            raise DkimKeyRefused(f"The DKIM key of {domain} has fewer than {KEY_BITS_MIN} bits: make a new one.")
        self._key_pem = key_pem
        self._selector = selector.encode("ascii")
        self._domain = domain.encode("ascii")

    def sign(self, raw: bytes) -> bytes:
        """The message with a DKIM-Signature on top. Takes about 7 ms: see `signed` for use on a loop."""
        signer = dkim.DKIM(raw)
        present = [name.lower() for name, _ in signer.headers if name.lower() in signer.should_sign]
        signature = signer.sign(
            self._selector,
            self._domain,
            self._key_pem,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=[*present, *_FROZEN],
        )
        return bytes(signature) + raw

    async def signed(self, raw: bytes) -> bytes:
        """`sign`, off the loop."""
        return await asyncio.to_thread(self.sign, raw)
