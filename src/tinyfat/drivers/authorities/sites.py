"""The authority that vouches for the sites of agents where no public one can: on machines nobody reaches from afar.

Another one than that of the control plane (tls.py): a machine's owner has the key of its site, and must not pass for
the control plane with it. Confined to the domain of the agents (RFC 5280 4.2.1.10): whoever trusts it in a browser
trusts it for those names alone. ECDSA on P-256, since browsers take no Ed25519; with signatures that are always the
same (RFC 6979), so everything here is a pure function of the home's secret, the name and the date.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tinyfat.domain.secrets import derived
from tinyfat.drivers.authorities.tls import key_usage

AUTHORITY_FROM = datetime(2026, 1, 1, tzinfo=UTC)
AUTHORITY_UNTIL = datetime(2066, 1, 1, tzinfo=UTC)
VALID_SECONDS = 90 * 86_400
VALID_SECONDS_MIN = 60
PERIODS = 3  # of a certificate's validity: in the second there is another one
CLOCK_SECONDS_MAX = 86_400  # so far a machine's clock may be behind
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, 2.4.2
_SERIAL_BYTES = 16


class SiteAuthority:
    def __init__(self, secret: bytes, domain: str, valid_seconds: int = VALID_SECONDS) -> None:
        """`secret`: of the home; `domain`: of the agents; `valid_seconds`: of a certificate, when it is first given."""
        self._secret, self._domain = secret, domain
        self._valid = timedelta(seconds=valid_seconds)
        self._key = _key(derived(secret, "site authority"))
        self._certificate = self._own_certificate()

    @property
    def pem(self) -> str:
        """What is trusted by whoever looks at the sites."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    @property
    def period(self) -> timedelta:
        """So long a certificate is the newest; two of them more it is valid."""
        return self._valid / PERIODS

    def certificate(self, agent_id: str, hostname: str, now: datetime) -> tuple[str, str]:
        """(certificate, private key), both PEM: the same throughout a period. The key is the agent's, whatever
        machine it is on. Raises ValueError for a name outside the domain."""
        if not hostname.endswith(f".{self._domain}"):
            raise ValueError(f"{hostname} is no name of {self._domain}")
        key = _key(derived(self._secret, f"site {agent_id}"))
        number = (now - AUTHORITY_FROM) // self.period
        begins = AUTHORITY_FROM + number * self.period
        ends = begins + self._valid
        named = hashlib.sha256(f"{agent_id} {hostname} {begins} {ends}".encode()).digest()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))  # the name below is what counts, and may be longer than a common name
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(named[:_SERIAL_BYTES]) >> 1 or 1)
            .not_valid_before(begins - min(self._valid, timedelta(seconds=CLOCK_SECONDS_MAX)))
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256(), ecdsa_deterministic=True)
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"), private.decode("ascii")

    def _own_certificate(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "TinyFat sites")])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(AUTHORITY_FROM)
            .not_valid_after(AUTHORITY_UNTIL)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.NameConstraints(permitted_subtrees=[x509.DNSName(self._domain)], excluded_subtrees=None),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256(), ecdsa_deterministic=True)
        )


def _key(seed: bytes) -> ec.EllipticCurvePrivateKey:
    """A private key of P-256 is a number from 1 to its order less one. Of 2^256 seeds so few are beyond the order that
    the remainder's unevenness is one in 2^32 (FIPS 186-5, A.2.1 takes 64 bits more for what is made in quantity)."""
    return ec.derive_private_key(int.from_bytes(seed) % (_P256_ORDER - 1) + 1, ec.SECP256R1())
