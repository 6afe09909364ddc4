"""A box: one runtime kept running, one link kept up, the turns carried between them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tinyfat import __version__
from tinyfat.box.build import BUILD
from tinyfat.box.child import NotGone, adoption
from tinyfat.box.desk import TurnDesk
from tinyfat.box.folder import BoxFolder, FolderRefused, Identity
from tinyfat.box.forwarder import ModelForwarder
from tinyfat.box.journal import Journal
from tinyfat.box.keeper import Keeper
from tinyfat.box.link import Link, NotWanted
from tinyfat.box.logbook import Logbook
from tinyfat.box.moving import Mover
from tinyfat.box.outbox import Outbox
from tinyfat.box.pace import Pace
from tinyfat.box.registry import UnknownRuntime, make_runtime
from tinyfat.box.runtime import MakeRuntime
from tinyfat.box.tls import client_context
from tinyfat.box.workplace import Workplace
from tinyfat.domain.link import PROTOCOL, Hello, MoveOrder, RuntimeSpec, RuntimeState, Status
from tinyfat.domain.secrets import derived
from tinyfat.domain.turns import Turn

_NOTHING_TO_RUN = Status(RuntimeState.STOPPED, "waiting to be told what to run")


class Supervisor:
    def __init__(
        self,
        folder: BoxFolder,
        identity: Identity,
        pace: Pace | None = None,
        make: MakeRuntime = make_runtime,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._pace = pace or Pace()
        self._folder = folder
        self._make = make
        self._places = folder.places(identity.shared_folder)
        self._logbook = Logbook(folder.log, now)
        self._logbook.hide([identity.link_token])
        self._journal = Journal(folder.journal)
        self._outbox = Outbox(self._journal, self._logbook)
        self._workplace = Workplace()
        self._desk = TurnDesk(
            identity.agent_name, self._journal, self._outbox, self._logbook, self._workplace, self._pace, now
        )
        # Derived: a runtime that outlived a killed box still has the right one.
        model_token = derived(identity.link_token.encode(), "model").hex()
        self._logbook.hide([model_token])
        tls = client_context(identity.link_ca)
        self._forwarder = ModelForwarder(model_token, self._desk.whose_call, self._logbook, tls)
        self._forwarder.on_limit = self._desk.limited
        self._link = Link(
            identity.link_url, identity.link_token, self, self._outbox, self._logbook, self._pace, chance, tls
        )
        self._identity = identity
        self._spec = folder.load_spec()
        self._spec_changed = asyncio.Event()
        self._mover = Mover(folder, self._places, identity, tls, self._logbook, self._workplace, now)
        self._keeper: Keeper | None = None
        self._refusal: Status | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, the control plane wants no more of this machine, or its folder is gone.

        When it returns or raises, nothing of the runtime runs any more.
        """
        self._logbook.box(f"box {__version__} ({BUILD}) of agent {self._identity.agent_name or '(none yet)'} starts")
        await self._forwarder.open(self._folder.model_port)
        self._desk.take_up()
        runtime = asyncio.create_task(self._keep_runtime())
        others = [
            asyncio.create_task(self._run_link()),
            asyncio.create_task(self._beat()),
            asyncio.create_task(stop.wait()),
        ]
        try:
            done, _ = await asyncio.wait((runtime, *others), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a mistake of ours ends the box, loudly: its driver starts it again
        finally:
            # The link and the turns go on while the runtime finishes what it is at.
            self._desk.pause()
            await _cancel(runtime)
            await _cancel(*others)
            await self._mover.close()
            await self._desk.close()
            await self._forwarder.close()
            try:
                await asyncio.create_task(adoption.end())
            except NotGone as error:
                self._logbook.box(str(error))
            self._logbook.box("the box ends; its runtime is stopped")
            self._journal.close()
            self._logbook.close()

    async def _run_link(self) -> None:
        try:
            await self._link.run()
        except NotWanted:
            self._logbook.box("the control plane wants this machine's end")

    async def _beat(self) -> None:
        """Returns when the folder is gone: nobody is home any more."""
        while self._folder.still_there():
            self._outbox.status(self.status())
            adoption.bury()
            await asyncio.sleep(self._pace.heartbeat)
        self._logbook.box(f"the folder {self._folder.path} is gone")

    async def _keep_runtime(self) -> None:
        """One keeper for each spec, one after the other."""
        while True:
            if self._spec is None:
                await self._spec_changed.wait()
                continue
            await self._mover.until_it_may_run()
            self._spec_changed.clear()
            self._desk.resume()
            keep = asyncio.create_task(self._keep(self._spec))
            changed = asyncio.create_task(self._changed_and_idle())
            moved = asyncio.create_task(self._moved_and_idle())
            try:
                await asyncio.wait((keep, changed, moved), return_when=asyncio.FIRST_COMPLETED)
                if keep.done():
                    keep.result()
            finally:
                await _cancel(keep, changed, moved)
            self._logbook.box("the control plane changed what to run, or where: the runtime is started anew")

    async def _keep(self, spec: RuntimeSpec) -> None:
        self._logbook.hide([spec.model.key])
        self._forwarder.forward_to(spec.model)
        try:
            runtime = self._make(self._as_the_runtime_sees(spec), self._places)
        except (UnknownRuntime, ImportError) as error:
            await self._refuse(str(error))
            return
        self._refusal = None
        self._keeper = Keeper(
            runtime, spec, self._folder.runtime_pid, self._logbook, self._pace, self._workplace, self._say_status
        )
        await self._keeper.keep()

    async def _refuse(self, words: str) -> None:
        """Wait for another spec."""
        self._logbook.box(words)
        self._refusal = Status(RuntimeState.CRASH_LOOP, words)
        self._workplace.closed(words)
        self._say_status()
        await asyncio.Event().wait()

    async def _changed_and_idle(self) -> None:
        await self._spec_changed.wait()
        if self._workplace.ready:  # else there is nothing to wait for: perhaps the new spec is the cure
            await self._desk.idle()

    async def _moved_and_idle(self) -> None:
        await self._mover.wants_it_still()
        self._desk.pause()
        with suppress(TimeoutError):  # the runtime has its own time to finish besides, when it is stopped
            async with asyncio.timeout(self._pace.drain_max):
                await self._desk.idle()

    def _say_status(self) -> None:
        self._outbox.status(self.status())

    # What the link asks and tells.

    def hello(self) -> Hello:
        return Hello(PROTOCOL, __version__, self._journal.held(), BUILD)

    def status(self) -> Status:
        if self._refusal:
            return self._refusal
        if self._keeper is None:
            return _NOTHING_TO_RUN
        return replace(self._keeper.status, memory_bytes=self._keeper.memory_bytes)

    def welcome(self, spec: RuntimeSpec) -> None:
        if spec == self._spec:
            return
        self._logbook.hide([spec.model.key])
        try:
            self._folder.save_spec(spec)
        except OSError as error:  # a full disk: it is kept in memory, and said again after the next start
            self._logbook.box(f"what to run could not be written down: {error.strerror}")
        known, self._spec = self._spec, spec
        if known is not None and self._as_the_runtime_sees(known, spec.agent_name) == self._as_the_runtime_sees(spec):
            self._forwarder.forward_to(spec.model)  # another key or relay: the runtime need not know
            self._renamed(spec.agent_name)  # a claim from the warm pool: it is up, and stays so
            return
        self._spec_changed.set()
        self._desk.pause()  # turns that come from now on wait for the runtime they were meant for

    def _as_the_runtime_sees(self, spec: RuntimeSpec, agent_name: str | None = None) -> RuntimeSpec:
        name = spec.agent_name if agent_name is None else agent_name
        return replace(spec, agent_name=name, model=self._forwarder.access(spec.model))

    def _renamed(self, agent_name: str) -> None:
        self._desk.agent_name = agent_name
        if self._keeper is not None:
            self._keeper.renamed(agent_name)

    def offered(self, turn: Turn) -> None:
        self._desk.offer(turn)

    def settled(self, turn_id: str) -> None:
        self._desk.settle(turn_id)

    def move(self, order: MoveOrder) -> None:
        self._mover.ordered(order)

    def identity_is(self, serial: int) -> None:
        try:
            if self._folder.want_identity(serial):
                self._logbook.box(f"this machine's identity has changed (to {serial}): root is asked to fetch it")
        except (FolderRefused, OSError) as error:
            self._logbook.box(f"this machine's identity has changed, and root could not be asked: {error}")


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
