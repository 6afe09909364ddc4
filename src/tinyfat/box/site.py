"""The agent's site on its machine: Caddy serves PUBLIC_FOLDER at https://HOSTNAME, as files and nothing else.

Port 443 alone is open, so a certificate from an ACME authority is proved over TLS (tls-alpn-01, RFC 8737), and there is
no redirect from port 80. Caddy runs under a unit of ours (recipes/machine_units), in a root of its own, where it sees
the agent's folder and SITE_FOLDER; Debian's own unit stays masked. Root's program does this, not the box.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tinyfat.domain.enrolment import (
    PUBLIC_FOLDER,
    SITE_FOLDER,
    SITE_SOCKET,
    SITE_STATE_FOLDER,
    SITE_UNIT,
    SITE_VIEW,
    STATE_FOLDER,
    Identity,
    SiteTls,
)

if TYPE_CHECKING:
    from tinyfat.box.become import Machine

COMMAND_SECONDS_MAX = 60.0
UPDATE_SECONDS_MAX = 120.0
INSTALL_SECONDS_MAX = 300.0
CADDY = "/usr/bin/caddy"
DEBIAN_UNIT = "caddy.service"
CADDYFILE = f"{SITE_FOLDER}/Caddyfile"
_CERTIFICATE, _KEY, _ACME_CA = (f"{SITE_FOLDER}/{name}" for name in ("site.pem", "site.key", "acme-ca.pem"))
_APT = (
    *("apt-get", "-q", "-o", "DPkg::Lock::Timeout=60", "-o", "Acquire::Retries=2"),
    *("-o", "Dpkg::Options::=--force-confold"),
)


def set_site(machine: Machine, identity: Identity) -> None:
    """Raises BecomeFailed, OSError."""
    if identity.site is None:
        _end(machine)
        return
    install(machine)
    _make_public(machine)
    machine.path(SITE_FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    site = identity.site
    changed = [
        machine.write(_CERTIFICATE, site.certificate, 0o600),
        machine.write(_KEY, site.key, 0o600),
        machine.write(_ACME_CA, site.acme_ca, 0o600),
        machine.write(CADDYFILE, caddyfile(identity.hostname, site), 0o600),
    ]
    if any(changed):
        machine.command(["systemctl", "enable", SITE_UNIT], COMMAND_SECONDS_MAX)
    # One that runs reads it anew and goes on serving: who is being answered, and who comes meanwhile, notice nothing.
    machine.command(["systemctl", "reload-or-restart" if any(changed) else "start", SITE_UNIT], COMMAND_SECONDS_MAX)


def caddyfile(hostname: str, site: SiteTls) -> str:
    """https://caddyserver.com/docs/caddyfile, as Caddy 2.6 reads it. No HTTP/3: that would be another open port.

    Hidden files stay hidden: what a program keeps beside a page (.git, .env) was not meant for the world.
    """
    return f"""\
{{
	admin unix/{SITE_SOCKET}
	auto_https disable_redirects
	storage file_system {SITE_STATE_FOLDER}
	servers {{
		protocols h1 h2
	}}
}}

https://{hostname} {{
{_tls(site)}
	root * {SITE_VIEW}{PUBLIC_FOLDER.removeprefix(STATE_FOLDER)}
	header -Server
	header X-Content-Type-Options nosniff
	file_server {{
		hide .*
	}}
}}
"""


def _tls(site: SiteTls) -> str:
    if site.certificate:
        return f"\ttls {_CERTIFICATE} {_KEY}"
    lines = ["tls {", "\tissuer acme {", f"\t\tdir {site.acme_url}"]
    lines += [f"\t\ttrusted_roots {_ACME_CA}"] if site.acme_ca else []
    lines += ["\t\tdisable_http_challenge", "\t}", "}"]
    return "\n".join(f"\t{line}" for line in lines)


def install(machine: Machine) -> None:
    """What our images have already; elsewhere Debian's package, without its unit. Raises BecomeFailed."""
    if machine.path(CADDY).exists():
        return
    machine.command(["systemctl", "mask", DEBIAN_UNIT], COMMAND_SECONDS_MAX)
    machine.command([*_APT, "update"], UPDATE_SECONDS_MAX)
    machine.command([*_APT, "install", "-y", "--no-install-recommends", "caddy"], INSTALL_SECONDS_MAX)


def _make_public(machine: Machine) -> None:
    """As the box's user, whose folders these are. It stays when nothing is published any more: it is the agent's."""
    with machine.as_box_user():
        machine.path(PUBLIC_FOLDER).mkdir(mode=0o755, parents=True, exist_ok=True)


def _end(machine: Machine) -> None:
    """What was got by ACME stays, for the next time: authorities give out so many certificates a week and no more."""
    folder = machine.path(SITE_FOLDER)
    if folder.exists():
        machine.command(["systemctl", "disable", "--now", SITE_UNIT], COMMAND_SECONDS_MAX)
        shutil.rmtree(folder)
