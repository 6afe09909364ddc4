"""The one place that chooses drivers and the store, and puts the parts together."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp

from tinyfat.agent_models import AgentModels
from tinyfat.domain.agents import Agent, AgentState
from tinyfat.domain.link import RuntimeSpec
from tinyfat.domain.machines import PROCESS, Machine, MachineState
from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.domain.secrets import derived
from tinyfat.drivers.inference.routes import MAIN, STANDIN_VENDOR
from tinyfat.drivers.mail.authentication import DnsSenderAuthentication
from tinyfat.drivers.mail.dkim_signing import DkimSigner
from tinyfat.drivers.mail.elsewhere import ElsewhereAuthentication
from tinyfat.drivers.mail.smtp_in import SmtpBounds, SmtpIn
from tinyfat.drivers.mail.smtp_out import NoSmarthost, SmtpOut
from tinyfat.drivers.mail.smtp_tls import TlsFiles
from tinyfat.drivers.secrets.envelope import EnvelopeSecrets, MasterKeyRefused
from tinyfat.drivers.secrets.master_key import kept_master_keys
from tinyfat.engine.beats import Beat, Beats
from tinyfat.engine.durable import Engine
from tinyfat.engine.mail_reading import MailReading
from tinyfat.engine.reading import Reading
from tinyfat.engine.workers import Workers
from tinyfat.fleet_wiring import Fleet
from tinyfat.flows import mail_turn, provision, retire
from tinyfat.flows.begun import Begun
from tinyfat.flows.delivery import Delivery
from tinyfat.flows.intake import MailIntake
from tinyfat.flows.loop_watch import LoopWatch
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.mail_turn import MailTurn
from tinyfat.flows.orders import Orders
from tinyfat.flows.outward import Outward
from tinyfat.flows.owner_mail import OwnerMail
from tinyfat.flows.readiness import Readiness
from tinyfat.flows.turn_starts import TurnStarts
from tinyfat.flows.usage_alerts import UsageWatch
from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.mail import MailOut
from tinyfat.ports.secrets import Unopenable
from tinyfat.process_wiring import ports_closed, process_machines
from tinyfat.room_wiring import Room, quotas_of
from tinyfat.server_wiring import ServerSide
from tinyfat.settings import Settings, SettingsRefused
from tinyfat.store.agents import AgentStore
from tinyfat.store.budgets import BudgetStore
from tinyfat.store.byok import ByokStore
from tinyfat.store.database import Database
from tinyfat.store.deliveries import DeliveryStore
from tinyfat.store.dumps import DumpFailed, dump, restore
from tinyfat.store.embedded import EmbeddedPostgres, PostgresRefused
from tinyfat.store.executors import ExecutorStore
from tinyfat.store.keys import KeyStore
from tinyfat.store.loops import LoopStore
from tinyfat.store.machines import MachineStore
from tinyfat.store.mail import MailStore
from tinyfat.store.notices import NoticeStore
from tinyfat.store.operator_mails import OperatorMailStore
from tinyfat.store.request_budgets import StoredLimits
from tinyfat.store.servers import SPECS
from tinyfat.store.signals import Signals, signal
from tinyfat.store.turns import OFFERS, TurnStore
from tinyfat.store.usage import UsageStore
from tinyfat.store.usage_alerts import UsageAlertStore
from tinyfat.store.usage_reports import UsageReportStore

__all__ = [
    "DumpFailed", "EmbeddedPostgres", "PostgresRefused", "UnknownMachineKind", "World", "dump", "embedded_postgres",
    "restore",
]  # fmt: skip


DNS_SECONDS_MAX = 5.0  # for one question to DNS
TURN_SWEEP_SECONDS = 4.0
TURNS_STARTED_AT_ONCE = 200
DELIVERY_SWEEP_SECONDS = 10.0
MACHINE_LOOK_SECONDS = 1.0
OFFER_SWEEP_SECONDS = 6.0
FORGET_SECONDS = 3600.0
UNBEGUN_LOOK_SECONDS = 15.0
USAGE_BEAT_SECONDS = 5.0
HOLD_SWEEP_SECONDS = 20.0
ALERT_SECONDS = 15.0
LOOP_LOOK_SECONDS = 15.0

log = logging.getLogger(__name__)


class UnknownMachineKind(ValueError):
    """There is no driver for machines of this kind."""


class World:
    """Everything a control plane process has, put together from its settings."""

    def __init__(
        self, settings: Settings, database_url: str, secret: bytes, host: str, http_url: str, relay_url: str,
        side: ServerSide,
    ) -> None:  # fmt: skip
        """`relay_url`: where boxes on this host reach the relay, without a path. `side` is open."""
        self.settings = settings
        self.side = side
        self._relay_url = relay_url
        self._listeners = [urlsplit(url).port or 0 for url in (http_url, relay_url)]
        self.host = host
        self.started_at = time.time()
        self.workers = Workers()
        self.mails = MailReading(self.workers)
        self.reading = Reading()
        self._build_models(http_url)
        self._build_store(database_url)
        self._build_usage(database_url)
        self.agent_models = AgentModels(derived(secret, "relay keys"), self.routes, self.relay_keys, self.byok)
        self._build_flows(secret, http_url)
        self._beats = Beats()

    def _build_models(self, http_url: str) -> None:
        self.standin_url = f"{http_url}/standin/model/v1"
        self.routes = self.settings.model_routes(self.standin_url, datetime.now(UTC))
        self.model = next(route for route in self.routes if route.alias == MAIN)
        choice = self.settings.model_choice()
        table = "the table [[models]]" if self.settings.models else ""
        self.model_source = table or (choice.source if choice else "our stand-in: no key is set")
        self.model_standin: ASGIApp | None = _model_standin() if self.model.vendor == STANDIN_VENDOR else None

    def _build_store(self, database_url: str) -> None:
        settings = self.settings
        self.database = Database(database_url)
        self.signals = Signals(database_url)
        self.agents = AgentStore(self.database)
        self.records = MachineStore(self.database, self.signals)
        self.turns = TurnStore(self.database, self.signals, self.mails)
        self.ledger = MailStore(
            self.database,
            RateCaps(settings.mail_rate_thread, settings.mail_rate_sender, settings.mail_quick_answers),
            quotas_of(settings),
        )
        self.deliveries = DeliveryStore(self.database, self.host)
        self.executors = ExecutorStore(self.database)
        self.engine = Engine(database_url, self.host, self.executors)
        self.room = Room(settings, self.database, self.ledger.quotas, self.engine, self.host)
        self.ready = Readiness(lambda: self.executors.beat(self.host), self.room.disks.room, time.monotonic)

    def _build_usage(self, database_url: str) -> None:
        settings = self.settings
        # A name of this life alone: what an earlier one held is swept, though it was the same host's.
        self.usage = UsageStore(self.database, f"{self.host}/usage/{uuid.uuid4()}")
        self.budgets = BudgetStore(self.database)
        self.relay_keys = KeyStore(self.database)
        self.usage_reports = UsageReportStore(self.database)
        master = settings.master_key
        try:
            keys = master.get_secret_value() if master else kept_master_keys(settings.home / "master.key")
            envelopes = EnvelopeSecrets(keys)
        except MasterKeyRefused as error:
            raise SettingsRefused(f"TINYFAT_MASTER_KEY: {error}") from None
        self.byok = ByokStore(self.database, envelopes)

    def _build_flows(self, secret: bytes, http_url: str) -> None:
        settings = self.settings
        bounce_secret = derived(secret, "bounce")
        self.machines = process_machines(settings)
        self.close_ports(settings.smtp_listen.port)
        self.kinds = MachineKinds({"process": self.machines, **self.side.drivers})
        link_url = http_url.replace("http", "ws", 1) + "/box/link"
        self.orders = Orders(derived(secret, "machines"), link_url, self.side.terms)
        mail_out = mail_out_of(settings)
        self.delivery = Delivery(settings.domain, self.deliveries, mail_out, bounce_secret)
        kind = settings.machine
        servers = {kind: self.kinds.servers(kind)} if self.kinds.is_server(kind) else {}
        self.outward = Outward(mail_out if settings.smarthost else None, servers, self.side.dns)
        self.fleet = Fleet(
            settings,
            self.side,
            self.database,
            self.engine,
            self.agents,
            self.records,
            self.turns,
            self.delivery,
            self.orders,
            self.kinds,
            self.host,
        )
        self.begun = Begun(self.agents, self.engine, time.time)
        self.machine_runs = self.fleet.machine_runs
        self.enrolments = self.fleet.enrolments
        self.identities = self.fleet.identities
        alerts = UsageAlertStore(self.database)
        self.usage_watch = UsageWatch(settings.domain, self.usage, alerts, self.delivery, time.monotonic)
        owner_mail = OwnerMail(settings.domain, NoticeStore(self.database), self.delivery)
        self.loop_watch = LoopWatch(LoopStore(self.database, settings.domain), self.agents, owner_mail)
        self.mail_turn = MailTurn(
            settings.domain,
            settings.turn_deadline,
            self.agents,
            self.turns,
            self.ledger,
            self.delivery,
            self.engine,
            self.mails,
        )
        self._turn_starts = TurnStarts(self.mail_turn.start)
        nameservers = settings.nameservers or None
        near = DnsSenderAuthentication(nameservers, DNS_SECONDS_MAX)
        self._authentication = ElsewhereAuthentication(near, self.workers, nameservers, DNS_SECONDS_MAX)
        self.operator_mails = OperatorMailStore(self.database)
        self.intake = MailIntake(
            settings.domain,
            settings.trusted_networks,
            self.agents,
            self.ledger,
            self._authentication,
            self._turn_starts.soon,
            bounce_secret,
            self.room.disks.room,
            self.mails,
            self.operator_mails,
        )
        self.engine.flow(mail_turn.FLOW, self.mail_turn.run)
        self.fleet.make_known(self.engine)

    def close_ports(self, smtp: int) -> None:
        """To boxes on this host. `smtp`: where we listen; 0: not known yet."""
        self.machines.ports = ports_closed(self.settings, self.side, smtp, self._listeners)

    async def owners_without_a_wall(self) -> list[str]:
        """Whose agents are processes of this host, and nobody said that they may be: they came under another kernel."""
        owners = {agent.owner for agent in await self.agents.all() if agent.machine_kind == PROCESS}
        if len(owners) < 2 or self.settings.process_shared or await self.machines.holds():
            return []
        return sorted(owners)

    def smtp_in(self) -> SmtpIn:
        settings = self.settings
        tls = None
        if settings.smtp_certificate and settings.smtp_certificate_key:
            tls = TlsFiles(settings.smtp_certificate, settings.smtp_certificate_key)
        listen = settings.smtp_listen
        bounds = SmtpBounds(settings.mail_size_max, self.reading, settings.trusted_networks)
        return SmtpIn(self.intake, listen.host, listen.port, settings.domain, bounds, tls)

    def check_machine_kind(self, kind: str) -> None:
        if kind not in self.kinds.known:
            raise UnknownMachineKind(
                f"There are no machines of the kind {kind!r} here; there are: {', '.join(self.kinds.known)}. "
                "docs/settings.md says what the others need."
            )
        if self.kinds.is_server(kind) and self.side.door is None:
            raise UnknownMachineKind(
                f"Servers of the kind {kind!r} need a way in for their boxes: set TINYFAT_BOX_LISTEN, "
                "then start `tinyfat up` again."
            )

    async def runtime_spec(self, agent: Agent | None, machine: Machine) -> RuntimeSpec:
        """No vendor's key is in it: the machine gets one of the relay's, or none while it waits for an agent."""
        door = self.side.door
        relay_url = door.relay_url if door and self.kinds.is_server(machine.kind) else self._relay_url
        if agent is None:
            model = self.agent_models.nobodys(relay_url)
            return RuntimeSpec(machine.runtime, "", model, self.settings.runtime_memory)
        model = await self.agent_models.access(agent.id, machine.id, relay_url)
        return RuntimeSpec(agent.runtime, agent.name, model, self.settings.runtime_memory)

    async def tell_box(self, agent_id: str) -> None:
        """Its key or its API changed: whichever process holds its link tells it."""
        machine = await self.records.of_agent(agent_id)
        if machine is not None:
            async with self.database.transaction() as connection:
                await signal(connection, SPECS, machine.id)

    async def open(self) -> None:
        """The database is there and of our schema. Raises SchemaTooNew, StoreUnavailable."""
        await self.database.open()
        await self.database.migrate()
        await self.room.open()
        self.side.share(StoredLimits(self.database))
        await self.usage.beat()
        await self._rewrap()
        await self.deliveries.retry_now()
        await self.engine.launch()
        await self._resume_agents()

    async def _rewrap(self) -> None:
        """After a rotation of the master key: the owners' keys under the newest."""
        try:
            if count := await self.byok.rewrap():
                log.warning("%d owners' keys are under the newest master key now; the older lines may go", count)
        except Unopenable as error:
            log.error("not every owner's key could be put under the newest master key: %s", error)

    async def _resume_agents(self) -> None:
        """A crash between an agent's row and its flow: the flow is begun now. One that was begun is not begun again."""
        for agent in await self.agents.all():
            if agent.state is AgentState.CREATING:
                await self.engine.start(provision.FLOW, f"{provision.FLOW}:{agent.id}", agent.id)
            elif agent.state is AgentState.DESTROYING:
                await self.engine.start(retire.FLOW, f"{retire.FLOW}:{agent.id}:{self.started_at}", agent.id)

    def begin_loops(
        self,
        offered: Callable[[str], None],
        sweep_offers: Callable[[], Awaitable[None]],
        respecify: Callable[[str], None],
    ) -> None:
        """What goes on beside the flows: `offered` hears of turns for boxes, `respecify` of machines ("": perhaps any)
        whose box is to be told anew what it runs."""
        self.signals.on(OFFERS, offered, lambda: None)
        self.signals.on(SPECS, respecify, lambda: respecify(""))
        beats: tuple[Beat, ...] = (
            ("turns", TURN_SWEEP_SECONDS, lambda: self.mail_turn.sweep(TURNS_STARTED_AT_ONCE)),
            ("deliveries", DELIVERY_SWEEP_SECONDS, self.delivery.sweep),
            ("offers", OFFER_SWEEP_SECONDS, sweep_offers),
            ("machines", MACHINE_LOOK_SECONDS, self._revive),
            ("unbegun flows", UNBEGUN_LOOK_SECONDS, self.begun.sweep),
            ("ended agents' keys", FORGET_SECONDS, self.fleet.ended_keys.sweep),
            ("usage", USAGE_BEAT_SECONDS, self.usage.beat),
            ("holds", HOLD_SWEEP_SECONDS, self.usage_watch.sweep_holds),
            ("usage alerts", ALERT_SECONDS, self.usage_watch.tell_owners),
            ("loops", LOOP_LOOK_SECONDS, self.loop_watch.tell_owners),
            ("ended turns", FORGET_SECONDS, self.usage.forget_turns),
            *self.room.beats(),
            *self.fleet.beats(),
        )
        self._beats.begin(beats)
        self._beats.begin_one("signals", self.signals.run())

    async def stop_machines(self) -> None:
        """An orderly end: the machines that live on this host end with us, and start again with us."""
        self._beats.cancel()
        try:
            machines = await self.records.wanted(self.host)
        except StoreUnavailable as away:
            log.warning("%s. The machines of this host run on; the next start finds them", away)
            return
        ended = await asyncio.gather(*(self.machine_runs.stop(m) for m in machines), return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException):
                log.error("%s", error)

    async def close(self) -> None:
        """Each, whatever becomes of the one before."""
        await self._beats.close()
        async with AsyncExitStack() as last_first:
            last_first.push_async_callback(self.database.close)
            last_first.push_async_callback(self._leave_usage)
            last_first.push_async_callback(self.workers.close)
            last_first.push_async_callback(self.engine.close)
            last_first.push_async_callback(self._turn_starts.close)
            last_first.callback(self._authentication.close)

    async def _leave_usage(self) -> None:
        try:
            await self.usage.leave()
        except StoreUnavailable:
            log.warning("the database does not answer: what is still held is swept later")

    async def status(self) -> dict[str, Any]:
        machines = await self.records.wanted(self.host)
        looks = [await self.machine_runs.seen(machine.kind, machine.id) for machine in machines]
        return {
            "domain": self.settings.domain,
            "smtp_listen": str(self.settings.smtp_listen),
            "http_listen": str(self.settings.http_listen),
            "smarthost": str(self.settings.smarthost.address) if self.settings.smarthost else None,
            "relay_listen": str(self.settings.relay_listen),
            "dkim": self.settings.dkim_key is not None,
            "model": {"source": self.model_source, "model": self.model.model},
            "process": await self.machines.sandbox_words(),
            "machines": {"wanted": len(machines), "running": sum(s.state is MachineState.RUNNING for s in looks)},
            "mail": await self.ledger.counts(),
            "alarms": len(await self.fleet.alarms.open()),
            "seconds_up": round(time.time() - self.started_at),
        }

    async def _revive(self) -> None:
        await self.machine_runs.revive(self.host, self._agent_to_run, self.orders.of)

    async def _agent_to_run(self, agent_id: str) -> Agent | None:
        """None while its end is under way."""
        agent = await self.agents.get(agent_id)
        return agent if agent.state in (AgentState.CREATING, AgentState.READY) else None


def embedded_postgres(settings: Settings) -> EmbeddedPostgres:
    return EmbeddedPostgres(settings.home)


def _model_standin() -> ASGIApp:
    from tinyfat.standins.model import model_app  # only where no key is set

    return model_app()


def mail_out_of(settings: Settings) -> MailOut:
    """Where mail leaves, as the settings say."""
    smarthost = settings.smarthost
    if smarthost is None:
        return NoSmarthost()
    signer = None
    if settings.dkim_key:
        signer = DkimSigner(settings.dkim_key.read_bytes(), settings.dkim_selector, settings.domain)
    address = smarthost.address
    return SmtpOut(
        address.host, address.port, smarthost.tls, smarthost.user, smarthost.password, settings.domain, signer
    )
