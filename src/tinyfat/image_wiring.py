"""Where images are kept and tried, by the driver: folders in the user's cache, for every home; or the provider's list.

A machine that an image is made or tried with calls a reception of this very run: its secrets are nobody else's, and
what `tinyfat up` serves, keeps and knows is not touched.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tinyfat.domain.secrets import installation_of
from tinyfat.drivers.authorities.archive import BoxArchive, box_archive
from tinyfat.drivers.authorities.ssh import SshAuthority
from tinyfat.drivers.authorities.tls import ServerTls, TlsAuthority
from tinyfat.drivers.hetzner_cloud import HetznerCloud
from tinyfat.drivers.machines import local_vm, nspawn
from tinyfat.drivers.machines.hetzner.servers import HetznerServers
from tinyfat.drivers.machines.hosted import HostedServers
from tinyfat.listen_address import Address, ListenFailed, bound
from tinyfat.machine_hosts.host_lock import locked
from tinyfat.machine_hosts.images import BUILD_SECONDS_MAX
from tinyfat.machine_hosts.machine_host import MachineHost, MachineHostError
from tinyfat.machine_hosts.nspawn import NspawnHost
from tinyfat.machine_hosts.qemu import QemuHost
from tinyfat.ports.machines import MachineRefused
from tinyfat.recipes.cloud_init import user_data
from tinyfat.settings import Settings

DRAFTS, PACKED = "images", "packed"  # of a build's folder
_HOSTS: Mapping[str, Callable[[Path, Path, Callable[[], datetime]], MachineHost]] = {
    "nspawn": NspawnHost,
    "local_vm": QemuHost,
}
_LOOPBACK, _PORT = "127.0.0.1", "{PORT}"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a machine at a provider needs besides; nothing, where machines are of this host."""

    ssh_ca: str = ""  # public key, one line; "": one of this run
    size: str = ""
    locations: tuple[str, ...] = ()
    runtimes: Mapping[str, Path] = field(default_factory=dict)  # by SHA-256: node and a runtime, packed


@dataclass(frozen=True, slots=True)
class ReceptionTerms:
    """What a reception is opened with."""

    domain: str
    control_url: str  # as the machine reaches it
    listener: socket.socket
    tls: ServerTls | None = field(repr=False)  # None: on this host's loopback
    authority_pem: str
    ssh_ca: str
    ssh_host_key: str = field(repr=False)
    box: BoxArchive
    runtime_memory: int
    elsewhere: Elsewhere

    @property
    def link_url(self) -> str:
        return self.control_url.replace("http", "ws", 1) + "/box/link"


@dataclass(frozen=True, slots=True)
class Door:
    """Where a reception listens, and how machines reach it."""

    listen: Address  # port 0: any
    url: str  # {PORT}: the one that it got


def images_folder(settings: Settings, driver: str) -> Path:
    """Of machines of this host."""
    return {"nspawn": nspawn.images_folder, "local_vm": local_vm.images_folder}[driver](settings.cache)


@asynccontextmanager
async def build_folder(settings: Settings) -> AsyncIterator[Path]:
    """For what one build makes and nobody keeps. It goes with the build; one that was killed, with the next."""
    builds = settings.cache / "images" / "builds"
    builds.mkdir(parents=True, exist_ok=True)
    for left in [one for one in builds.iterdir() if one.is_dir()]:
        await _clear(left)
    folder = builds / secrets.token_hex(4)
    async with _held(folder):
        folder.mkdir()
        try:
            yield folder
        finally:
            await _remove(folder)


async def _clear(folder: Path) -> None:
    """Unless its build goes on, or what it left cannot be ended by us."""
    with suppress(MachineHostError):
        async with _held(folder):
            for driver in _HOSTS:
                if (folder / driver).is_dir():
                    async with trial_host(driver, folder, folder / DRAFTS):
                        pass
            await _remove(folder)


def _held(folder: Path) -> AbstractAsyncContextManager[None]:
    """As long as its build lasts. Beside the folder: who waits for the lock must not wait for a file that goes."""
    return locked(folder.with_suffix(".lock"), 0.0)


async def _remove(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)  # its name is never used again


@asynccontextmanager
async def trial_host(driver: str, folder: Path, images: Path) -> AsyncIterator[MachineHost]:
    """A maker of machines whose images are in `images`, with no machine before and none after."""
    host: MachineHost = _HOSTS[driver](folder / driver, images, now)
    await host.open()
    try:
        await _empty(host)
        yield host
    finally:
        await _empty(host)
        await host.close()


async def _empty(host: MachineHost) -> None:
    for machine in await host.machines():
        await host.destroy(machine.name)


def trial_servers(host: MachineHost) -> HostedServers:
    return HostedServers(host, "trial", user_data, time.monotonic, plain_image=nspawn.BASE.name)


def door_of_host(driver: str, host: MachineHost) -> Door:
    """A virtual machine reaches this host's loopback at its gateway; a container the bridge's own address."""
    reached = host.gateway.ipv4
    return Door(Address(_LOOPBACK if driver == "local_vm" else reached, 0), f"https://{reached}:{_PORT}")


async def shut_loopback(host: MachineHost, terms: ReceptionTerms) -> None:
    """A virtual machine has business with its reception alone on this host."""
    if isinstance(host, QemuHost):
        await host.admit([terms.listener.getsockname()[1]])


def door_of_loopback() -> Door:
    """A container in this host's network: nobody else hears what it says."""
    return Door(Address(_LOOPBACK, 0), f"http://{_LOOPBACK}:{_PORT}")


def door_from_elsewhere(settings: Settings, listen: Address | None, url: str) -> Door:
    """Raises MachineRefused where nobody said how servers elsewhere reach this host."""
    chosen, reached = listen or settings.box_listen, url or ("" if listen else settings.box_url)
    if chosen is None or not reached:
        raise MachineRefused(
            "Servers at Hetzner call this command while it makes an image: say where by --listen HOST:PORT and --url "
            "https://HOST:PORT, or by TINYFAT_BOX_LISTEN and TINYFAT_BOX_URL."
        )
    return Door(chosen, reached)


@asynccontextmanager
async def reception_terms(
    settings: Settings, door: Door, elsewhere: Elsewhere | None = None
) -> AsyncIterator[ReceptionTerms]:
    """With secrets of this run alone. Raises MachineRefused where it cannot listen."""
    secret = secrets.token_bytes(32)
    authority, ssh = TlsAuthority(secret), SshAuthority(secret)
    try:
        listener = bound(door.listen, "The reception of the image's machine")
    except ListenFailed as error:
        raise MachineRefused(f"{error} Has `tinyfat up` that address? Name another by --listen and --url.") from error
    with listener, TemporaryDirectory(prefix="tinyfat-reception-") as folder:
        url = door.url.replace(_PORT, str(listener.getsockname()[1]))
        parts = urlsplit(url)
        tls = ServerTls(authority, [parts.hostname or ""], Path(folder), now()) if parts.scheme == "https" else None
        more = elsewhere or Elsewhere()
        yield ReceptionTerms(
            domain=settings.domain,
            control_url=url,
            listener=listener,
            tls=tls,
            authority_pem=authority.pem,
            ssh_ca=more.ssh_ca or ssh.public_line,
            ssh_host_key=ssh.host_key("image")[0],
            box=await asyncio.to_thread(box_archive),
            runtime_memory=settings.runtime_memory,
            elsewhere=more,
        )


@asynccontextmanager
async def hetzner(settings: Settings, secret: bytes) -> AsyncIterator[HetznerServers]:
    """With the labels of this home. Raises MachineRefused without a token."""
    if settings.hetzner_token is None:
        raise MachineRefused("TINYFAT_HETZNER_TOKEN is not set: images at Hetzner are made and listed with it.")
    cloud = HetznerCloud(settings.hetzner_token.get_secret_value(), settings.hetzner_url)
    try:
        yield HetznerServers(
            cloud,
            installation_of(secret),
            user_data,
            locations=settings.hetzner_locations,
            euro=settings.euro,
            size=settings.hetzner_type,
        )
    finally:
        cloud.close()


def only_build_elsewhere(settings: Settings) -> AbstractAsyncContextManager[None]:
    """Of this home: the next one ends what the one before it has left at the provider."""
    return locked(settings.home / "image.lock", BUILD_SECONDS_MAX)


def at_hetzner(settings: Settings, secret: bytes, runtimes: Mapping[str, Path]) -> Elsewhere:
    """With the SSH key that every server of this home is made with: the project has room for few."""
    ssh_ca = SshAuthority(secret).public_line
    return Elsewhere(ssh_ca, settings.hetzner_type, settings.hetzner_locations, runtimes)
