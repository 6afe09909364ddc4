"""The flows that make, end, mend and keep ready agents' machines, put together with the ledgers they need."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tinyfat.drivers.authorities.ssh import SshAuthority
from tinyfat.engine.beats import Beat
from tinyfat.engine.durable import Engine
from tinyfat.flows import pool, provision, publish, replace, retire
from tinyfat.flows.addressing import Addressing
from tinyfat.flows.delivery import Delivery
from tinyfat.flows.export import Exports
from tinyfat.flows.first_words import FirstWords
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.orders import Orders
from tinyfat.flows.owner_mail import OwnerMail
from tinyfat.flows.pool import Pool, PoolTerms
from tinyfat.flows.provision import Provision
from tinyfat.flows.publish import Publish
from tinyfat.flows.reconcile import Reconcile
from tinyfat.flows.replace import Replace
from tinyfat.flows.retire import Retire
from tinyfat.flows.server_making import ServerMaking
from tinyfat.flows.site_watch import SiteWatch
from tinyfat.flows.watch import MachineRuns
from tinyfat.flows.welcome import Welcome
from tinyfat.identities import ServerIdentities
from tinyfat.server_wiring import ServerSide
from tinyfat.settings import Settings
from tinyfat.store.addresses import AddressStore, NameStore
from tinyfat.store.agents import AgentStore
from tinyfat.store.alarms import AlarmStore
from tinyfat.store.database import Database
from tinyfat.store.ended_keys import EndedKeys
from tinyfat.store.enrolments import EnrolmentStore
from tinyfat.store.image_machines import ImageMachineStore
from tinyfat.store.machines import MachineStore
from tinyfat.store.notices import NoticeStore
from tinyfat.store.servers import ServerStore
from tinyfat.store.ssh_access import AgentKeyStore, SshSessionStore
from tinyfat.store.state_moves import MoveFolder, StateMoveStore
from tinyfat.store.turns import TurnStore

POOL_SWEEP_SECONDS = 3.0
NO_POOL_SWEEP_SECONDS = 60.0  # only what an earlier setting left is looked after
RECONCILE_SECONDS = 180.0
SITES_LOOK_SECONDS = 300.0
EXPORTS_SWEEP_SECONDS = 10.0


class Fleet:
    def __init__(
        self,
        settings: Settings,
        side: ServerSide,
        database: Database,
        engine: Engine,
        agents: AgentStore,
        records: MachineStore,
        turns: TurnStore,
        delivery: Delivery,
        orders: Orders,
        kinds: MachineKinds,
        host: str,
    ) -> None:
        self._settings = settings
        self._agents = agents
        self._records = records
        self._engine = engine
        self._orders = orders
        self.kinds = kinds
        self.ssh: SshAuthority = side.ssh
        self.servers = ServerStore(database)
        self.addresses = AddressStore(database)
        self.names = NameStore(database)
        self.keys = AgentKeyStore(database)
        self.ended_keys = EndedKeys(database)
        self.ssh_sessions = SshSessionStore(database)
        self.alarms = AlarmStore(database)
        self.image_machines = ImageMachineStore(database)
        self.enrolments = EnrolmentStore(database)
        self.identities = ServerIdentities(records, agents, self.keys, orders, side.ssh, side.site_tls)
        self.machine_runs = MachineRuns(kinds, records)
        self.addressing = Addressing(settings.domain, kinds, self.addresses, self.names, side.dns)
        self.making = ServerMaking(agents, kinds, records, self.servers, self.keys, orders, self.addressing)
        self.words = FirstWords(records, turns)
        self._owner_mail = OwnerMail(settings.domain, NoticeStore(database), delivery)
        welcome = Welcome(self._owner_mail, self.keys, self.addressing, self.host_key)
        self._provision = Provision(agents, self.making, records, turns, orders, self.machine_runs, welcome, host)
        self._retire = Retire(agents, self.ended_keys, kinds, self.machine_runs, self.addressing)
        sites = side.sites()
        self._publish = Publish(agents, kinds, records, self.servers, orders, sites)
        self._site_watch = SiteWatch(agents, records, sites, self.alarms, _now)
        self.moves = StateMoveStore(database)
        self.move_files = MoveFolder(settings.home / "moves")
        self.exports = Exports(records, self.moves, self.move_files, _now)
        self._replace = self._replacing(agents, records, orders)
        self.reconcile = self._reconcile(side)
        self.pool = self._pool(side)

    def host_key(self, agent_id: str) -> str:
        """The public line of its server's SSH host key, whatever machine that is."""
        return self.ssh.host_key(agent_id)[1]

    def make_known(self, engine: Engine) -> None:
        engine.flow(provision.FLOW, self._provision.run)
        engine.flow(retire.FLOW, self._retire.run)
        engine.flow(replace.FLOW, self._replace.run)
        engine.flow(publish.FLOW, self._publish.run)
        engine.flow(pool.FLOW, self.pool.run)
        engine.flow(pool.END_FLOW, self.pool.end)

    def beats(self) -> Sequence[Beat]:
        exports = ("exports", EXPORTS_SWEEP_SECONDS, self.exports.sweep)
        if not self.kinds.server_kinds:
            return (exports,)
        return (
            exports,
            ("warm pool", POOL_SWEEP_SECONDS if self._settings.pool else NO_POOL_SWEEP_SECONDS, self.pool.sweep),
            ("reconciliation", RECONCILE_SECONDS, self.reconcile.run),
            ("sites", SITES_LOOK_SECONDS, self._site_watch.run),
        )

    def _replacing(self, agents: AgentStore, records: MachineStore, orders: Orders) -> Replace:
        return Replace(
            agents,
            self.kinds,
            records,
            self.servers,
            self.moves,
            self.move_files,
            orders,
            self.making,
            self.addressing,
            self.machine_runs,
            self.words,
            self._owner_mail,
            _now,
        )

    def _reconcile(self, side: ServerSide) -> Reconcile:
        # Of this host's own makers of machines only the one that is set: elsewhere money is asked for what we forgot.
        always = [kind for kind in self.kinds.server_kinds if kind == self._settings.machine or kind not in side.hosts]
        return Reconcile(
            self._agents,
            self.kinds,
            self._records,
            self.servers,
            self.addresses,
            self.names,
            self.addressing,
            self.making,
            self.alarms,
            self.image_machines,
            _now,
            always,
        )

    def _pool(self, side: ServerSide) -> Pool:
        settings = self._settings
        terms = None
        if side.terms is not None and self.kinds.is_server(settings.machine):
            terms = PoolTerms(settings.machine, settings.pool_runtime, settings.pool)
        return Pool(
            terms,
            self._records,
            self.servers,
            self._orders,
            self.making,
            self.machine_runs,
            self.addressing,
            self.words,
            self.alarms,
            self._engine,
            _now,
        )


def _now() -> datetime:
    return datetime.now(UTC)
