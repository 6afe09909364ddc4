"""RSA keys for tests, made from a seed: no library and no program is asked for. Never for anything but tests."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from functools import cache

_EXPONENT = 65_537
_SMALL_PRIMES = tuple(n for n in range(3, 2000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2)))


@dataclass(frozen=True, slots=True)
class RsaKey:
    private_pem: bytes  # PKCS #1
    public_base64: str  # SubjectPublicKeyInfo, as a DKIM key record's p= wants it

    def record(self, tags: str = "v=DKIM1; k=rsa") -> bytes:
        return f"{tags}; p={self.public_base64}".encode()


@cache
def rsa_key(seed: int, bits: int = 1024) -> RsaKey:
    chance = random.Random(seed)
    while True:
        p, q = _prime(chance, bits // 2), _prime(chance, bits // 2)
        if p != q and (p - 1) % _EXPONENT and (q - 1) % _EXPONENT:
            break
    n, d = p * q, pow(_EXPONENT, -1, (p - 1) * (q - 1))
    numbers = (0, n, _EXPONENT, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    private = base64.encodebytes(_sequence(*map(_integer, numbers)))
    public = _sequence(_integer(n), _integer(_EXPONENT))
    algorithm = _sequence(bytes.fromhex("06092a864886f70d010101"), b"\x05\x00")
    spki = _sequence(algorithm, _tagged(0x03, b"\x00" + public))
    pem = b"-----BEGIN RSA PRIVATE KEY-----\n" + private + b"-----END RSA PRIVATE KEY-----\n"
    return RsaKey(pem, base64.b64encode(spki).decode())


def _prime(chance: random.Random, bits: int) -> int:
    while True:
        candidate = chance.getrandbits(bits) | (3 << (bits - 2)) | 1
        if all(candidate % small for small in _SMALL_PRIMES) and _is_prime(candidate, chance):
            return candidate


def _is_prime(n: int, chance: random.Random, rounds: int = 20) -> bool:
    """Miller-Rabin."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(rounds):
        x = pow(chance.randrange(2, n - 1), odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def _tagged(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = (
        bytes([size])
        if size < 128
        else bytes([0x80 | (size.bit_length() + 7) // 8]) + size.to_bytes((size.bit_length() + 7) // 8, "big")
    )
    return bytes([tag]) + length + content


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _sequence(*items: bytes) -> bytes:
    return _tagged(0x30, b"".join(items))
