"""Machines that are whole servers, by the settings: their drivers, names in the DNS, and the way in for their boxes."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr

from tinyfat.dns_server.answering import ServedZone
from tinyfat.domain.agents import Agent
from tinyfat.domain.enrolment import AGAIN_SECONDS, SiteTls
from tinyfat.domain.machines import Machine
from tinyfat.domain.secrets import installation_of
from tinyfat.drivers.authorities.archive import BoxArchive, box_archive, kept_archives
from tinyfat.drivers.authorities.sites import SiteAuthority
from tinyfat.drivers.authorities.ssh import SshAuthority
from tinyfat.drivers.authorities.tls import ServerTls, TlsAuthority
from tinyfat.drivers.dns.cloudflare import CloudflareDns
from tinyfat.drivers.dns.local import LocalDns
from tinyfat.drivers.machines.docker import DockerMachines
from tinyfat.drivers.machines.docker_engine import DockerEngine
from tinyfat.drivers.machines.hosted import HostedServers
from tinyfat.drivers.machines.local_vm import local_vm_host
from tinyfat.drivers.machines.nspawn import BASE, nspawn_host
from tinyfat.drivers.sites.https import HttpsSites
from tinyfat.flows.orders import ServerTerms
from tinyfat.listen_address import Address, bound
from tinyfat.machine_hosts.machine_host import MachineHost, MachineHostError
from tinyfat.ports.dns import Dns
from tinyfat.ports.machines import Machines, MachinesError, Servers
from tinyfat.recipes.cloud_init import user_data
from tinyfat.server_settings import CLOUDFLARE_URL
from tinyfat.settings import Settings, SettingsRefused
from tinyfat.store.request_budgets import StoredLimits

if TYPE_CHECKING:  # Hetzner's client is 9 MB, for those who have no server there
    from tinyfat.drivers.hetzner_cloud import HetznerCloud

BOX_PORT = 8027
RELAY_PORT = 8028  # of the way in: boxes of servers call models there
PLAIN_IMAGE = "debian"  # as a setting: no image of ours
RENEW_LOOK_SECONDS = 3600.0
SITES_AUTHORITY_FILE = "sites-ca.pem"  # in the home: for whoever is to trust our own certificates of sites
_CERTIFICATES_OF = {"hetzner": "acme"}  # by kind of machine

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """Where the boxes of servers call, over TLS that our own authority vouches for."""

    control_url: str
    relay_url: str
    authority_pem: str
    box_listener: socket.socket
    relay_listener: socket.socket
    tls: ServerTls = field(repr=False)

    @property
    def link_url(self) -> str:
        return self.control_url.replace("https", "wss", 1) + "/box/link"

    async def keep_certificate(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(RENEW_LOOK_SECONDS)
            self.tls.renew(datetime.now(UTC))


class ServerSide:
    """Call `open` before anything else is asked of it."""

    def __init__(self, settings: Settings, secret: bytes) -> None:
        self._settings = settings
        self.installation = installation_of(secret)
        self.ssh = SshAuthority(secret)
        self._tls_authority = TlsAuthority(secret)
        self.site_authority = SiteAuthority(secret, settings.domain, settings.site_certificate_seconds)
        self._acme_ca = _certificates(settings.acme_ca)
        self._nspawn = nspawn_host(settings.home, settings.cache)
        self._local_vm = local_vm_host(settings.home, settings.cache)
        self.hosts: dict[str, MachineHost] = {"nspawn": self._nspawn, "local_vm": self._local_vm}
        self._clouds: list[HetznerCloud] = []
        self._docker: DockerEngine | None = None
        self.drivers = self._drivers()
        self.dns, self.local_dns = self._names()
        self.archive: BoxArchive | None = None
        self.archives: dict[str, bytes] = {}  # by SHA-256
        self.door: Door | None = None
        self.image = ""

    async def open(self) -> None:
        """Raises SettingsRefused, ListenFailed."""
        settings = self._settings
        host = self.hosts.get(settings.machine)
        try:
            if host is not None:
                await host.open()
        except MachineHostError as error:
            raise SettingsRefused(f"TINYFAT_MACHINE is {settings.machine}: {error}") from None
        listen, reached = settings.box_listen, ""
        if host is not None:
            reached = host.gateway.ipv4
            # A virtual machine reaches this host's loopback at its gateway; a container the bridge's own address.
            listen = listen or Address("127.0.0.1" if settings.machine == "local_vm" else reached, BOX_PORT)
        if listen is None:
            return
        (settings.home / SITES_AUTHORITY_FILE).write_text(self.site_authority.pem, "ascii")
        self.archive = await asyncio.to_thread(box_archive)
        self.archives = await asyncio.to_thread(kept_archives, settings.home / "boxes", self.archive)
        self.door = self._open_door(listen, reached)
        if settings.machine == "local_vm":
            await self._shut_loopback(self.door)
        self.image = await self._image()

    async def _shut_loopback(self, door: Door) -> None:
        """Virtual machines reach this host's loopback at their gateway: they have business with the door alone."""
        try:
            await self._local_vm.admit([each.getsockname()[1] for each in (door.box_listener, door.relay_listener)])
        except MachineHostError as error:
            raise SettingsRefused(f"TINYFAT_MACHINE is local_vm: {error}") from None

    def _open_door(self, listen: Address, reached: str) -> Door:
        """`reached`: where machines of this host reach it; "": where we listen."""
        box = bound(listen, "TINYFAT_BOX_LISTEN")
        relay_at = self._settings.box_relay_listen or Address(listen.host, box.getsockname()[1] + 1)
        relay = bound(relay_at, "TINYFAT_BOX_RELAY_LISTEN")
        control_url = self._settings.box_url or f"https://{reached or _reached(listen.host)}:{box.getsockname()[1]}"
        host = urlsplit(control_url).hostname or ""
        shown = f"[{host}]" if ":" in host else host
        relay_url = self._settings.box_relay_url or f"https://{shown}:{relay.getsockname()[1]}"
        names = sorted({host, urlsplit(relay_url).hostname or host})
        tls = ServerTls(self._tls_authority, names, self._settings.home / "tls", datetime.now(UTC))
        return Door(control_url, relay_url, self._tls_authority.pem, box, relay, tls)

    async def _image(self) -> str:
        """ "": the provider's plain one."""
        wanted = self._settings.image
        if wanted:
            return "" if wanted == PLAIN_IMAGE else wanted
        driver = self.drivers.get(self._settings.machine)
        if not isinstance(driver, Servers):
            return ""
        try:
            images = await driver.images()
        except MachinesError as error:
            log.warning("the images are not known (%s); new servers are made from the plain one", error)
            return ""
        return images[0].name if images else ""

    @property
    def terms(self) -> ServerTerms | None:
        if self.door is None or self.archive is None:
            return None
        settings = self._settings
        return ServerTerms(
            domain=settings.domain,
            control_url=self.door.control_url,
            control_ca=self.door.authority_pem,
            link_url=self.door.link_url,
            box_sha256=self.archive.sha256,
            ssh_ca=self.ssh.public_line,
            ssh_networks=settings.ssh_networks,
            image=self.image,
            size=settings.hetzner_type if settings.machine == "hetzner" else "",
            locations=settings.hetzner_locations if settings.machine == "hetzner" else (),
        )

    def site_tls(self, agent: Agent, machine: Machine) -> tuple[SiteTls, int]:
        """And in how many seconds it is asked for again. A public authority where the world reaches the machine, and
        our own elsewhere: docs/decisions/0009."""
        settings = self._settings
        if (settings.site_certificates or _CERTIFICATES_OF.get(machine.kind, "own")) == "acme":
            return SiteTls(acme_url=settings.acme_url, acme_ca=self._acme_ca), AGAIN_SECONDS
        again = min(AGAIN_SECONDS, int(self.site_authority.period.total_seconds() / 2))
        return SiteTls(*self.site_authority.certificate(agent.id, machine.hostname, datetime.now(UTC))), again

    def sites(self) -> HttpsSites:
        return HttpsSites((self.site_authority.pem, self._acme_ca))

    def zones(self) -> tuple[ServedZone, ...]:
        """For the server of our own names."""
        if self.local_dns is None:
            return ()
        zone = self.local_dns.zone
        return (ServedZone(zone, self.local_dns.records, (f"ns.{zone}",)),)

    def share(self, limits: StoredLimits) -> None:
        """Requests to vendors are counted over all processes from now on."""
        for cloud in self._clouds:
            cloud.share(limits)
        if isinstance(self.dns, CloudflareDns):
            self.dns.share(limits)

    async def close(self) -> None:
        """The network of machines goes where none is left."""
        for cloud in self._clouds:
            cloud.close()
        if self._docker is not None:
            await self._docker.close()
        if (host := self.hosts.get(self._settings.machine)) is not None:
            try:
                await host.close()
            except MachineHostError as error:
                log.warning("%s", error)

    def _drivers(self) -> dict[str, Machines]:
        settings = self._settings
        drivers: dict[str, Machines] = {
            kind: HostedServers(host, self.installation, user_data, time.monotonic, plain_image=BASE.name)
            for kind, host in self.hosts.items()
        }
        if settings.machine == "docker":
            self._docker = DockerEngine(settings.docker_url)
            # In this host's network: its box dials our loopback, as a process of this host would.
            drivers["docker"] = DockerMachines(self._docker, settings.image, time.monotonic, network="host")
        if settings.hetzner_token is not None:
            from tinyfat.drivers.machines.hetzner.servers import HetznerServers

            drivers["hetzner"] = HetznerServers(
                self._cloud(settings.hetzner_token, settings.hetzner_url),
                self.installation,
                user_data,
                locations=settings.hetzner_locations,
                euro=settings.euro,
                size=settings.hetzner_type,
            )
        return drivers

    def _cloud(self, token: SecretStr, url: str) -> HetznerCloud:
        from tinyfat.drivers.hetzner_cloud import HetznerCloud

        self._clouds.append(HetznerCloud(token.get_secret_value(), url))
        return self._clouds[-1]

    def _names(self) -> tuple[Dns | None, LocalDns | None]:
        settings = self._settings
        token = settings.dns_zone_token
        match settings.dns:
            case "local":
                local = LocalDns(settings.home / "names.json", settings.domain)
                return local, local
            case "cloudflare" if token is not None:
                return CloudflareDns(
                    token.get_secret_value(), settings.domain, settings.dns_url or CLOUDFLARE_URL
                ), None
            case "hetzner" if token is not None:
                from tinyfat.drivers.dns.hetzner import HetznerDns

                return HetznerDns(self._cloud(token, settings.dns_url or settings.hetzner_url), settings.domain), None
            case _:
                return None, None


def _certificates(file: Path | None) -> str:
    """PEM, without what people write around it. Raises SettingsRefused."""
    if file is None:
        return ""
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsRefused(f"TINYFAT_ACME_CA: {file} has no certificates in PEM ({error}).") from None
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode("ascii") for one in found)


def _reached(host: str) -> str:
    """Where nobody said how we are reached, the address we listen on is what machines dial."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - read, not bound
        raise SettingsRefused(
            f"TINYFAT_BOX_URL is not set: TINYFAT_BOX_LISTEN is {host}, which is no address that a server could dial."
        )
    return f"[{host}]" if ":" in host else host
