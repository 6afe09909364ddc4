"""User-data: what makes a server out of a Debian that knows nothing of us (cloud-init's `#cloud-config` format).

Pure text. It runs on a provider's plain Debian, on an image of ours, in a virtual machine here and in a systemd
container: what a container cannot do (swap) is left out there, and what fails is said on the console, not hidden.
Nothing in it stays valuable: docs/decisions/0007.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TypeAlias

from tinyfat.domain.agents import RuntimeKind
from tinyfat.domain.enrolment import (
    BOX_FOLDER,
    BOX_STATE_FOLDER,
    BOX_UNIT,
    BOX_USER,
    CONFIG_FOLDER,
    CONTROL_CA_FILE,
    ENROL_FILE,
    ENROL_UNIT,
    HOST_KEY_FILE,
    IDENTITY_PATH_UNIT,
    IDENTITY_TIMER_UNIT,
    INPUT_RULES_FILE,
    NODE_FOLDER,
    OPERATOR_USER,
    OWNER_USER,
    ROOT_FOLDER,
    RUNTIMES_FOLDER,
    SITE_ROOT,
    SSH_FOLDER,
    STATE_FOLDER,
    input_rules,
    ssh_principal,
)
from tinyfat.domain.machines import MachineOrder, ServerOrder
from tinyfat.recipes.machine_units import FETCH_PROGRAM, units
from tinyfat.recipes.nftables import ruleset

USER_DATA_BYTES_MAX = 32 * 1024  # Hetzner's limit, the smallest
JOURNAL_BYTES_MAX = "200M"
SWAP_MEGABYTES = 2048
SET_UP_PROGRAM = f"{CONFIG_FOLDER}/set-up.sh"
SSHD_FILE = "/etc/ssh/sshd_config.d/10-tinyfat.conf"
_VENV = f"""\
[ -e {NODE_FOLDER}/current ] || python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
"""

Yaml: TypeAlias = "str | bool | int | Sequence[Yaml] | Mapping[str, Yaml]"


def user_data(order: MachineOrder) -> str:
    """Always the same for the same order. Raises EnrolmentRefused for networks that are none."""
    server = order.server
    assert server is not None, "only a server is made from user-data"
    config: dict[str, Yaml] = {
        "hostname": server.hostname.partition(".")[0],
        "fqdn": server.hostname,
        "prefer_fqdn_over_hostname": False,
        "locale": "false",  # a word, as the schema wants it: none is generated, which takes seconds
        "package_update": False,  # set-up.sh installs what is missing, and an image of ours lacks nothing
        "package_upgrade": False,
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_genkeytypes": ["ed25519"],
        "users": _users(),
        "write_files": [_file(*file) for file in _files(order, server)],
        "runcmd": [["/bin/sh", SET_UP_PROGRAM]],
    }
    return "#cloud-config\n" + _yaml(config)


def _users() -> list[Yaml]:
    person: dict[str, Yaml] = {"shell": "/bin/bash", "lock_passwd": True, "sudo": "ALL=(ALL) NOPASSWD:ALL"}
    return [
        {"name": OWNER_USER, "gecos": "The owner of this agent", **person},
        # Debian has a group of that name already, for other things.
        {"name": OPERATOR_USER, "gecos": "Who hosts this agent", "no_user_group": True, **person},
        {
            "name": BOX_USER,
            "gecos": "The box and its runtime",
            "system": True,
            "homedir": STATE_FOLDER,
            "no_create_home": True,
            "shell": "/usr/sbin/nologin",
            "lock_passwd": True,
        },
    ]


def _files(order: MachineOrder, server: ServerOrder) -> list[tuple[str, str, str]]:
    """(path, mode, text); all are root's."""
    secret, public, program = "0600", "0644", "0700"
    enrol = {
        "control_url": server.control_url,
        "machine_id": order.id,
        "enrolment_token": server.enrolment_token,
        "box_sha256": server.box_sha256,
    }
    return [
        (ENROL_FILE, secret, json.dumps(enrol, indent=1) + "\n"),
        (CONTROL_CA_FILE, public, server.control_ca),
        (FETCH_PROGRAM, program, resources.files("tinyfat.box").joinpath("fetch_box.py").read_text("utf-8")),
        (SET_UP_PROGRAM, program, _set_up(order.runtime)),
        *((f"/etc/systemd/system/{name}", public, text) for name, text in units().items()),
        ("/etc/tmpfiles.d/tinyfat.conf", public, _folders()),
        ("/etc/nftables.conf", "0755", ruleset()),
        (INPUT_RULES_FILE, secret, input_rules(server.ssh_networks, server.published)),
        (SSHD_FILE, public, _sshd()),
        (f"{SSH_FOLDER}/user_ca.pub", public, server.ssh_ca + "\n"),
        (f"{SSH_FOLDER}/principals/{OPERATOR_USER}", public, ssh_principal(order.id) + "\n"),
        (f"{SSH_FOLDER}/keys/{OWNER_USER}", public, "".join(f"{key}\n" for key in server.owner_keys)),
        ("/etc/systemd/journald.conf.d/tinyfat.conf", public, f"[Journal]\nSystemMaxUse={JOURNAL_BYTES_MAX}\n"),
        ("/etc/apt/apt.conf.d/52tinyfat-upgrades", public, _upgrades()),
    ]


def _file(path: str, mode: str, text: str) -> Yaml:
    return {"path": path, "permissions": mode, "content": text}


def _folders() -> str:
    """tmpfiles.d(5)."""
    lines = [f"d {folder} 0755 root root" for folder in (ROOT_FOLDER, BOX_FOLDER, SITE_ROOT)]
    lines += [f"d {folder} 0755 {BOX_USER} {BOX_USER}" for folder in (NODE_FOLDER, RUNTIMES_FOLDER)]
    lines += [f"d {STATE_FOLDER} 0755 {BOX_USER} {BOX_USER}"]
    lines += [f"d {BOX_STATE_FOLDER} 0700 {BOX_USER} {BOX_USER}", f"d {CONFIG_FOLDER} 0700 root root"]
    return "".join(f"{line}\n" for line in lines)


def _sshd() -> str:
    """sshd_config(5): of each keyword the first value counts, and this file is read early.

    The owner may keep further keys in a file of their own; the operator has no keys, only certificates that name this
    very machine.
    """
    return f"""\
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers {OWNER_USER} {OPERATOR_USER}
HostKey {HOST_KEY_FILE}
AuthorizedKeysFile {SSH_FOLDER}/keys/%u .ssh/authorized_keys
TrustedUserCAKeys {SSH_FOLDER}/user_ca.pub
AuthorizedPrincipalsFile {SSH_FOLDER}/principals/%u
Match User {OPERATOR_USER}
    AuthorizedKeysFile none
Match all
"""


def _upgrades() -> str:
    """apt.conf(5), unattended-upgrade(8): security's alone, and never a restart in the middle of a turn."""
    return """\
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
#clear Unattended-Upgrade::Origins-Pattern;
Unattended-Upgrade::Origins-Pattern { "origin=Debian,codename=${distro_codename}-security,label=Debian-Security"; };
Unattended-Upgrade::Automatic-Reboot "false";
"""


def _set_up(runtime: str) -> str:
    """What the rest of cloud-init cannot say: only what is missing, and no failure unheard. Caddy is no part of it: it
    is installed where an agent is published (box/site)."""
    # What comes with the box needs no node, and so nothing that installs one.
    venv = "" if runtime == RuntimeKind.ECHO else _VENV
    return f"""\
#!/bin/sh
# By cloud-init, once. What fails is on the console and in the journal; the machine comes up all the same.
warn() {{ echo "tinyfat: WARNING: $*" >&2; echo "tinyfat: WARNING: $*" >/dev/console 2>/dev/null; }}
export DEBIAN_FRONTEND=noninteractive
missing=""
for package in nftables unattended-upgrades; do
  dpkg-query -W -f '${{Status}}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
{venv}if [ -n "$missing" ]; then
  apt="apt-get -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold"
  $apt update && $apt install -y --no-install-recommends $missing || warn "these packages are missing:$missing"
fi
systemd-tmpfiles --create /etc/tmpfiles.d/tinyfat.conf || warn "the folders of the box could not be made"
# For the next boot. systemd finds new units when it is asked for them: nothing waits for it to read all of them anew.
systemctl --no-reload enable nftables.service
systemctl --no-reload enable {BOX_UNIT} {IDENTITY_PATH_UNIT} {IDENTITY_TIMER_UNIT} {ENROL_UNIT}
systemctl restart nftables.service || warn "nftables refused its rules: NO FIREWALL RUNS; see journalctl -u nftables"
systemctl start --no-block {ENROL_UNIT} {IDENTITY_PATH_UNIT} {IDENTITY_TIMER_UNIT}
# While that runs.
systemctl restart systemd-journald
if ! systemd-detect-virt --container --quiet && [ -z "$(swapon --show --noheadings)" ]; then
  (umask 077 && fallocate -l {SWAP_MEGABYTES}M /swapfile && mkswap /swapfile && swapon /swapfile &&
    echo '/swapfile none swap sw 0 0' >>/etc/fstab) || {{ rm -f /swapfile; warn "there is no swap"; }}
fi
"""


def _yaml(value: Yaml, indent: str = "") -> str:
    """Block style (YAML 1.1, as cloud-init reads it); texts of several lines as they are, others in quotes."""
    if isinstance(value, Mapping):
        return "".join(f"{indent}{name}:{_after(item, indent)}" for name, item in value.items())
    assert not isinstance(value, str | bool | int)
    return "".join(f"{indent}-{_after(item, indent)}" for item in value)


def _after(value: Yaml, indent: str) -> str:
    """What follows a name or a dash, to the end of the line or of the block."""
    deeper = indent + "  "
    if isinstance(value, str):
        return f" {_text(value, deeper)}\n"
    if isinstance(value, bool | int):
        return f" {json.dumps(value)}\n"
    return f"\n{_yaml(value, deeper)}" if value else " []\n"


def _text(text: str, indent: str) -> str:
    plain = "\n" in text and text.endswith("\n") and not text.endswith("\n\n") and not text.startswith((" ", "\n"))
    if not plain or not text.replace("\n", "").isprintable():
        return _quoted(text)
    return "|\n" + "\n".join(f"{indent}{line}" if line else "" for line in text.removesuffix("\n").split("\n"))


def _quoted(text: str) -> str:
    """YAML's double-quoted style."""
    escaped = (f"\\{letter}" if letter in '"\\' else letter for letter in text)
    return '"' + "".join(part if part.isprintable() else f"\\U{ord(part):08x}" for part in escaped) + '"'
