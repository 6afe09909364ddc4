"""The authorities, judged by OpenSSH and OpenSSL."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from tinyfat.drivers.authorities.archive import ARCHIVES_KEPT, BoxArchive, kept_archives
from tinyfat.drivers.authorities.sites import SiteAuthority
from tinyfat.drivers.authorities.ssh import SECONDS_MAX, SshAuthority, SshKeyRefused
from tinyfat.drivers.authorities.tls import SERVER_DAYS, ServerTls, TlsAuthority

SECRET = b"s" * 32
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def ssh_keygen(*argv: str) -> str:
    if not shutil.which("ssh-keygen"):
        pytest.skip("no ssh-keygen here (Debian: apt-get install openssh-client)")
    return subprocess.run(["ssh-keygen", *argv], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def ssh() -> SshAuthority:
    return SshAuthority(SECRET)


class TestSsh:
    def test_keys_are_functions_of_the_secret_and_the_name(self, ssh: SshAuthority) -> None:
        assert ssh.host_key("a") == SshAuthority(SECRET).host_key("a")
        lines = {ssh.host_key("a")[1], ssh.host_key("b")[1], SshAuthority(b"t" * 32).host_key("a")[1]}
        assert len(lines | {ssh.public_line}) == 4

    def test_openssh_reads_the_host_key(self, ssh: SshAuthority, tmp_path: Path) -> None:
        private, public = ssh.host_key("agent-1")
        file = tmp_path / "key"
        file.touch(0o600)
        file.write_text(private)

        assert ssh_keygen("-y", "-f", str(file)).strip() == public
        assert load_ssh_private_key(private.encode(), None)

    def test_openssh_reads_the_certificate(self, ssh: SshAuthority, tmp_path: Path) -> None:
        line = ssh.sign_user(ssh.host_key("a user's")[1], ["machine-1"], 300, "operator: maria", 42, NOW)
        file = tmp_path / "key-cert.pub"
        file.write_text(line)

        said = ssh_keygen("-L", "-f", str(file))
        authority = ssh_keygen("-l", "-f", str(write(tmp_path / "ca.pub", ssh.public_line))).split()[1]

        assert "user certificate" in said
        assert authority in said
        assert 'Key ID: "operator: maria"' in said
        assert "Serial: 42" in said
        assert "machine-1" in said
        assert "permit-pty" in said
        assert "forwarding" not in said

    def test_a_certificate_is_for_somebody_and_not_for_long(self, ssh: SshAuthority) -> None:
        key = ssh.host_key("u")[1]
        for principals, seconds in (([], 300), (["machine-1"], 0), (["machine-1"], SECONDS_MAX + 1)):
            with pytest.raises(ValueError, match="names whom it is for"):
                ssh.sign_user(key, principals, seconds, "", 1, NOW)

    @pytest.mark.parametrize("line", ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519 !!!!", "hello there"])
    def test_what_is_no_key_is_not_certified(self, ssh: SshAuthority, line: str) -> None:
        with pytest.raises(SshKeyRefused):
            ssh.sign_user(line, ["machine-1"], 300, "", 1, NOW)


def write(file: Path, text: str) -> Path:
    file.write_text(text + "\n")
    return file


class TestTls:
    def test_the_authority_is_a_function_of_the_secret(self) -> None:
        assert TlsAuthority(SECRET).pem == TlsAuthority(SECRET).pem
        assert TlsAuthority(SECRET).pem != TlsAuthority(b"t" * 32).pem

    def test_openssl_verifies_the_server_by_name_and_address(self, tmp_path: Path) -> None:
        authority = TlsAuthority(SECRET)
        server = ServerTls(authority, ["control.example.org", "127.0.0.1", "::1"], tmp_path, datetime.now(UTC))

        for name in ("control.example.org", "127.0.0.1", "::1"):
            assert handshake(server.context, ssl.create_default_context(cadata=authority.pem), name) == "TLSv1.3"

    def test_another_name_and_another_authority_are_refused(self, tmp_path: Path) -> None:
        server = ServerTls(TlsAuthority(SECRET), ["control.example.org"], tmp_path, datetime.now(UTC))
        ours = ssl.create_default_context(cadata=TlsAuthority(SECRET).pem)
        others = ssl.create_default_context(cadata=TlsAuthority(b"t" * 32).pem)

        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server.context, ours, "elsewhere.example.org")
        for context in (others, ssl.create_default_context()):
            with pytest.raises(ssl.SSLCertVerificationError):
                handshake(server.context, context, "control.example.org")

    def test_a_server_certificate_signs_no_other(self) -> None:
        certificate, _ = TlsAuthority(SECRET).server_certificate(["a"], NOW)
        read = x509.load_pem_x509_certificate(certificate.encode())

        assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert read.not_valid_after_utc == NOW + timedelta(days=SERVER_DAYS)

    def test_it_is_renewed_before_its_end_and_not_before(self, tmp_path: Path) -> None:
        server = ServerTls(TlsAuthority(SECRET), ["a"], tmp_path, NOW)
        first = (tmp_path / "server.pem").read_text()

        server.renew(NOW + timedelta(days=SERVER_DAYS - 31))
        assert (tmp_path / "server.pem").read_text() == first
        server.renew(NOW + timedelta(days=SERVER_DAYS - 29))
        assert (tmp_path / "server.pem").read_text() != first

    def test_the_key_is_for_its_owner_alone(self, tmp_path: Path) -> None:
        ServerTls(TlsAuthority(SECRET), ["a"], tmp_path / "tls", NOW)

        assert (tmp_path / "tls").stat().st_mode & 0o077 == 0
        assert (tmp_path / "tls" / "server.key").stat().st_mode & 0o077 == 0


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str | None:
    """The TLS version that a client and a server agree on. Raises what the client does."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            pass  # the client says why

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as wrapped:
            return wrapped.version()
    finally:
        ours.close()
        serving.join()


class TestSites:
    NAME = "ada.agents.example.org"

    def test_the_same_all_month_and_anew_long_before_its_end(self) -> None:
        sites = SiteAuthority(SECRET, "agents.example.org")
        first, key = sites.certificate("agent-1", self.NAME, NOW)
        again = SiteAuthority(SECRET, "agents.example.org").certificate("agent-1", self.NAME, NOW)
        assert (sites.pem, again) == (SiteAuthority(SECRET, "agents.example.org").pem, (first, key))
        read = x509.load_pem_x509_certificate(first.encode())
        assert read.not_valid_before_utc < NOW < read.not_valid_after_utc
        later, same_key = sites.certificate("agent-1", self.NAME, NOW + sites.period)
        assert (later != first, same_key == key) == (True, True)
        assert sites.period == timedelta(days=30)
        assert read.not_valid_after_utc - NOW > 2 * sites.period
        assert sites.certificate("agent-2", self.NAME, NOW)[1] != key

    def test_a_browser_that_trusts_it_goes_to_the_agents_sites_and_nowhere_else(self, tmp_path: Path) -> None:
        sites = SiteAuthority(SECRET, "agents.example.org")
        for number, moment in enumerate((datetime.now(UTC), datetime.now(UTC) + timedelta(days=1))):
            certificate, key = sites.certificate("agent-1", self.NAME, moment)
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            files = write(tmp_path / f"{number}.pem", certificate), write(tmp_path / f"{number}.key", key)
            server.load_cert_chain(*files)
            ours = ssl.create_default_context(cadata=sites.pem)
            assert handshake(server, ours, self.NAME) == "TLSv1.3"
            for context, name in (
                (ours, "bob.agents.example.org"),
                (ssl.create_default_context(cadata=TlsAuthority(SECRET).pem), self.NAME),
                (ssl.create_default_context(), self.NAME),
            ):
                with pytest.raises(ssl.SSLCertVerificationError):
                    handshake(server, context, name)

    def test_no_name_outside_the_domain_gets_one_and_none_would_count(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="is no name of"):
            SiteAuthority(SECRET, "agents.example.org").certificate("agent-1", "plane.example.org", NOW)
        wider, narrow = SiteAuthority(SECRET, "example.org"), SiteAuthority(SECRET, "agents.example.org")
        certificate, key = wider.certificate("agent-1", "plane.example.org", datetime.now(UTC))  # by the same key
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(write(tmp_path / "c.pem", certificate), write(tmp_path / "c.key", key))
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
            handshake(server, ssl.create_default_context(cadata=narrow.pem), "plane.example.org")

    def test_it_does_not_vouch_for_the_control_plane(self) -> None:
        assert SiteAuthority(SECRET, "example.org").pem != TlsAuthority(SECRET).pem


class TestArchives:
    def test_a_machine_ordered_before_an_upgrade_still_gets_its_box(self, tmp_path: Path) -> None:
        boxes = [archive(f"version {number}") for number in range(ARCHIVES_KEPT + 2)]
        for number, box in enumerate(boxes):
            kept = kept_archives(tmp_path, box)
            os.utime(tmp_path / f"{box.sha256}.tar.gz", (number, number))

        assert kept == {box.sha256: box.data for box in boxes[-ARCHIVES_KEPT:]}

    def test_the_present_one_stays_however_old_its_file(self, tmp_path: Path) -> None:
        for number in range(ARCHIVES_KEPT + 1):
            kept_archives(tmp_path, archive(f"version {number}"))
        old = archive("version 0")
        assert old.sha256 in kept_archives(tmp_path, old)

    def test_what_was_damaged_on_the_disk_is_not_served(self, tmp_path: Path) -> None:
        one, other = archive("one"), archive("other")
        kept_archives(tmp_path, one)
        (tmp_path / f"{one.sha256}.tar.gz").write_bytes(b"cut")

        assert kept_archives(tmp_path, other) == {other.sha256: other.data}


def archive(text: str) -> BoxArchive:
    data = text.encode()
    return BoxArchive(data, hashlib.sha256(data).hexdigest())
