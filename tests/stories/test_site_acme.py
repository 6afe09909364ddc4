"""A site at Hetzner's stand-in, whose certificate comes by ACME over port 443 alone, on a machine that had no Caddy.

`make story-vm`. Root, Debian: Let's Encrypt's own test server (pebble) asks the machine; the packages come from Debian,
over a mirror on this host, since machines here reach nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from tests.running import free_port, until
from tests.stories.servers_town import (
    DOMAIN,
    HETZNER_TOKEN,
    PROGRAM_SECONDS_MAX,
    READY_SECONDS_MAX,
    Town,
    hetzner,
    need_machines,
    program,
    town,
)
from tests.stories.test_server_enrolment import open_ports
from tests.stories.test_servers import built_beforehand
from tests.stories.town import PostOffice
from tinyfat.domain.enrolment import PUBLIC_FOLDER
from tinyfat.drivers.authorities.tls import TlsAuthority
from tinyfat.machine_hosts.networks import Bridge

pytestmark = [pytest.mark.nspawn, pytest.mark.long]

NAME = f"ada.{DOMAIN}"
PACKAGES = ("caddy", "libnss3-tools", "libnss3", "libnspr4", "media-types")


@pytest.fixture
async def post() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


async def test_a_machine_without_caddy_gets_it_and_a_certificate_by_acme(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    if missing := [name for name in ("pebble", "curl", "apt-get") if shutil.which(name) is None]:
        pytest.skip(f"tests/stories/install_machine_tools.sh was not run: {', '.join(missing)} missing")
    machines = tmp_path / "hetzner" / "machines"
    gateway = (await Bridge(machines).subnet()).gateway.ipv4
    dns_port, port = free_port(), free_port()
    async with AsyncExitStack() as stack:
        mirror = stack.enter_context(debian_mirror(tmp_path / "mirror", gateway))
        directory, ca = await stack.enter_async_context(pebble(tmp_path / "pebble", gateway, dns_port))
        url = await stack.enter_async_context(hetzner(tmp_path / "hetzner", await built_beforehand(tmp_path, "echo")))
        settings = {
            "TINYFAT_MACHINE": "hetzner",
            "TINYFAT_HETZNER_URL": url,
            "TINYFAT_HETZNER_TOKEN": HETZNER_TOKEN,
            "TINYFAT_BOX_LISTEN": f"0.0.0.0:{port}",
            "TINYFAT_BOX_URL": f"https://{gateway}:{port}",
            "TINYFAT_BOX_RELAY_LISTEN": f"0.0.0.0:{free_port()}",
            "TINYFAT_ACME_URL": directory,
            "TINYFAT_ACME_CA": str(ca),
        }
        here = await stack.enter_async_context(town(tmp_path, post, machines, dns_port, **settings))
        server = await here.make("ada", "echo")
        assert await let_in(url) == {"22", "None"}
        await as_root(here, "dpkg --purge caddy && rm -rf /etc/apt/sources.list* /var/lib/apt/lists/*")
        await here.tinyfat.command("agent", "publish", "ada", "--no-wait")
        await until(complains(here, "caddy"), PROGRAM_SECONDS_MAX, "what it cannot do is said")
        await as_root(here, f"echo 'deb [trusted=yes] {mirror} ./' >/etc/apt/sources.list")
        said = await here.tinyfat.command("agent", "publish", "ada", seconds=READY_SECONDS_MAX)
        assert f"https://{NAME}/" in said
        assert "complains" not in await here.tinyfat.command("agent", "show", "ada")
        await as_root(here, f"echo '<p>Nordlicht</p>' >{PUBLIC_FOLDER}/index.html")
        assert await front_page(here, ca) == "<p>Nordlicht</p>\n"
        assert await as_root(here, "systemctl is-enabled caddy; true") == "masked\n"
        assert await asyncio.to_thread(open_ports, server.ipv4) == [22, 443]
        assert await let_in(url) == {"22", "443", "None"}
        await here.tinyfat.command("agent", "unpublish", "ada", seconds=READY_SECONDS_MAX)
        assert await asyncio.to_thread(open_ports, server.ipv4) == [22]
        assert await let_in(url) == {"22", "None"}
        await here.tinyfat.command("agent", "destroy", "ada", "--yes")


def complains(here: Town, word: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return word in (await here.operator.ask("GET", "agents/ada"))["machine"]["complaint"]

    return look


async def as_root(here: Town, command: str) -> str:
    return await here.tinyfat.command("ssh", "ada", "--", "sudo", "-n", "sh", "-c", f"({command}) 2>&1")


async def let_in(url: str) -> set[str]:
    """The ports that the provider lets through to the one server there is."""
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {HETZNER_TOKEN}"}, trust_env=False) as asking:
        (server,) = (await asking.get(f"{url}/servers")).json()["servers"]
        applied = {one["id"] for one in server["public_net"]["firewalls"] if one["status"] == "applied"}
        walls = (await asking.get(f"{url}/firewalls")).json()["firewalls"]
    return {str(rule["port"]) for wall in walls if wall["id"] in applied for rule in wall["rules"]}


async def front_page(here: Town, authority: Path) -> str:
    (address,) = await here.dig(NAME)
    return await program(
        "curl", "--silent", "--show-error", "--fail", "--max-time", "10", "--cacert", str(authority),
        "--resolve", f"{NAME}:443:{address}", f"https://{NAME}/",
    )  # fmt: skip


@asynccontextmanager
async def pebble(folder: Path, gateway: str, dns_port: int) -> AsyncIterator[tuple[str, Path]]:
    """Its directory's URL, and a file with whom to believe: the server itself, and what it signs."""
    folder.mkdir()
    own = TlsAuthority(os.urandom(32))
    certificate, key = own.server_certificate([gateway, "127.0.0.1"], datetime.now(UTC))
    for name, text in (("cert.pem", certificate), ("key.pem", key), ("ca.pem", own.pem)):
        (folder / name).write_text(text)
    acme, management = free_port(), free_port()
    configuration = {
        "listenAddress": f"0.0.0.0:{acme}", "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "cert.pem"), "privateKey": str(folder / "key.pem"),
        "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"pebble": configuration}))
    log = (folder / "log").open("wb")
    process = await asyncio.create_subprocess_exec(
        "pebble", "-config", str(folder / "config.json"), "-dnsserver", f"127.0.0.1:{dns_port}",
        env=os.environ | {"PEBBLE_VA_NOSLEEP": "1"}, stdout=log, stderr=log,
    )  # fmt: skip
    log.close()
    try:
        context = ssl.create_default_context(cadata=own.pem)

        def root() -> str:
            with urllib.request.urlopen(f"https://127.0.0.1:{management}/roots/0", context=context) as answer:
                return str(answer.read(), "ascii")

        async def answers() -> bool:
            assert process.returncode is None, (folder / "log").read_text()
            try:
                (folder / "ca.pem").write_text(own.pem + await asyncio.to_thread(root))
            except OSError:
                return False
            return True

        await until(answers, PROGRAM_SECONDS_MAX, "pebble answers")
        yield f"https://{gateway}:{acme}/dir", folder / "ca.pem"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@contextmanager
def debian_mirror(folder: Path, host: str) -> Iterator[str]:
    """Debian's packages of Caddy as a repository (sources.list(5), "flat"), served to machines of this host."""
    folder.mkdir()
    subprocess.run(["apt-get", "-q=2", "download", *PACKAGES], cwd=folder, check=True)
    index = []
    for file in sorted(folder.glob("*.deb")):
        fields = subprocess.run(["dpkg-deb", "--field", str(file)], capture_output=True, text=True, check=True).stdout
        data = file.read_bytes()
        size = f"Filename: ./{file.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        index.append(f"{fields.strip()}\n{size}")
    assert len(index) == len(PACKAGES), "apt-get did not bring all of Caddy's packages"
    (folder / "Packages").write_text("\n".join(index))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **named: object) -> None:
            super().__init__(*args, directory=str(folder), **named)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
