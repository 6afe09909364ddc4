"""The authority that vouches for the control plane to its boxes: ours alone, pinned by them, known to nobody else.

Ed25519 (RFC 8410), whose keys are any 32 bytes and whose signatures are always the same: the authority's certificate is
a pure function of the home's secret, so it can be told to a machine before it exists and is never lost with a file.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tinyfat.domain.secrets import derived

AUTHORITY_FROM = datetime(2026, 1, 1, tzinfo=UTC)
AUTHORITY_UNTIL = datetime(2066, 1, 1, tzinfo=UTC)
SERVER_DAYS = 90
RENEW_DAYS = 30  # before its end
CLOCK_DAYS = 1  # by so much a machine's clock may be behind


class TlsAuthority:
    def __init__(self, secret: bytes) -> None:
        """`secret`: of the home."""
        self._key = Ed25519PrivateKey.from_private_bytes(derived(secret, "tls authority"))
        self._server_key = Ed25519PrivateKey.from_private_bytes(derived(secret, "tls server"))
        self._certificate = self._own_certificate()

    @property
    def pem(self) -> str:
        """The authority's certificate: what a machine pins."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def server_certificate(self, hosts: Sequence[str], now: datetime) -> tuple[str, str]:
        """(certificate, private key), both PEM, for these names and IP addresses (RFC 5280 4.2.1.6)."""
        names = [_general_name(host) for host in hosts]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name("TinyFat control plane"))
            .issuer_name(self._certificate.subject)
            .public_key(self._server_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=CLOCK_DAYS))
            .not_valid_after(now + timedelta(days=SERVER_DAYS))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._server_key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, None)
        )
        key = self._server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"), key.decode("ascii")

    def _own_certificate(self) -> x509.Certificate:
        key = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(_name("TinyFat authority"))
            .issuer_name(_name("TinyFat authority"))
            .public_key(key)
            .serial_number(1)
            .not_valid_before(AUTHORITY_FROM)
            .not_valid_after(AUTHORITY_UNTIL)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(self._key, None)
        )


class ServerTls:
    """The server's side of TLS for our listeners, its certificate renewed while they listen."""

    def __init__(self, authority: TlsAuthority, hosts: Sequence[str], folder: Path, now: datetime) -> None:
        """`folder` (made where it is missing, 0700) holds the key and the certificate: OpenSSL reads them from files
        alone. Raises OSError."""
        self._authority = authority
        self._hosts = tuple(hosts)
        self._folder = folder
        self._renew_at = now
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3  # both ends are ours
        self.renew(now)

    def renew(self, now: datetime) -> None:
        """To be called once a day: connections from then on see the new certificate."""
        if now < self._renew_at:
            return
        certificate, key = self._authority.server_certificate(self._hosts, now)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in (("server.pem", certificate), ("server.key", key)):
            _write_private(self._folder / name, text)
        self.context.load_cert_chain(self._folder / "server.pem", self._folder / "server.key")
        self._renew_at = now + timedelta(days=SERVER_DAYS - RENEW_DAYS)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def key_usage(signs_certificates: bool) -> x509.KeyUsage:
    """RFC 5280 4.2.1.3: either this or that."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_private(file: Path, text: str) -> None:
    draft = file.with_name(file.name + ".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    draft.replace(file)
