"""An image comes to be: a machine that ran its agent forgets who it was, and its disk is copied; another is made of the
copy and must answer. Neither machine outlives this, however it ends.

It is no durable flow: a command does it, and what a killed one leaves is removed by the next, or by `reconcile`.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from tinyfat.domain.link import RuntimeState
from tinyfat.domain.machines import MachineOrder, MachineState
from tinyfat.domain.turns import TurnOutcome, result_words
from tinyfat.flows.first_words import PROBE_QUESTION
from tinyfat.flows.watch import looked_again, until
from tinyfat.ports.image_reception import Reception
from tinyfat.ports.machines import Machines, MachinesError, MachinesUnreachable, Servers
from tinyfat.ports.requests import RequestsShort, ending

ORDER_SECONDS_MAX = 180.0  # until the provider lists it as running
READY_SECONDS_MAX = 25 * 60.0  # from then until its runtime is up; what must be installed is, meanwhile
ANSWER_SECONDS_MAX = 300.0
STOPPED_SECONDS_MAX = 400.0  # its runtime finishes the turn it is at, for 330 s at most
COPIED_SECONDS_MAX = 700.0
GONE_SECONDS_MAX = 180.0
# In all less than reconcile's ORPHAN_SECONDS: no machine is taken away while it is of use.


Removing: TypeAlias = Callable[[], Awaitable[bool]]


class ImageNotMade(Exception):
    """The image is not there, or is no good."""


class ImageMaking:
    def __init__(self, machines: Machines, reception: Reception, say: Callable[[str], None]) -> None:
        self._machines, self._reception, self._say = machines, reception, say

    async def make(self, servers: Servers, order: MachineOrder, image: str, *, sealed: bool) -> None:
        """`sealed`: the machine forgets who it was, else it is only stopped. Raises ImageNotMade, MachinesError."""
        async with self._machine(order):
            await self._answers(order)
            if sealed:
                self._say("the machine forgets who it was")
                await self._reception.seal()
            await self._stopped(order.id, ask=not sealed)
            self._say(f"its disk is copied: {image}")
            await self._copied(servers, order.id, image)

    async def try_out(self, order: MachineOrder, image: str, remove: Removing, *, fresh: bool) -> None:
        """A machine of the image answers a question. An image that fails is removed; a `fresh` one also where it could
        not be tried to the end: nobody may take it for a good one. Raises ImageNotMade, MachinesError."""
        self._say(f"{image} is tried")
        try:
            async with self._machine(order):
                await self._answers(order)
        except BaseException as error:
            if not fresh and not isinstance(error, ImageNotMade):
                raise
            words = await _removed(image, remove)
            if isinstance(error, ImageNotMade | MachinesError):
                raise ImageNotMade(f"{words} {error}") from error
            raise

    @asynccontextmanager
    async def _machine(self, order: MachineOrder) -> AsyncIterator[None]:
        await self._ended(order.id)  # what a build that was killed left
        try:
            await self._runs(order)
            yield
        except BaseException as error:
            try:
                await self._ended(order.id)
            except (ImageNotMade, MachinesError) as still_there:
                raise ImageNotMade(f"{error} And: {still_there}") from error
            raise
        await self._ended(order.id)

    async def _runs(self, order: MachineOrder) -> None:
        self._say("a machine is ordered")
        unreachable = MachinesUnreachable(f"The provider does not list {order.id} as running after it was ordered.")

        async def runs() -> bool:
            nonlocal unreachable
            try:
                seen = await self._machines.look(order.id)
                if seen.state in (MachineState.GONE, MachineState.STOPPED):
                    await self._machines.start(order)
                return seen.state is MachineState.RUNNING
            except RequestsShort:
                raise
            except MachinesUnreachable as error:
                unreachable = error
                return False

        if not await until(runs, ORDER_SECONDS_MAX):
            raise unreachable

    async def _answers(self, order: MachineOrder) -> None:
        self._say("it boots, and its agent starts")
        reception = self._reception
        if not await until(_now(self._settled), READY_SECONDS_MAX) and reception.status is None:
            raise ImageNotMade(
                f"The machine did not call {order.server.control_url if order.server else order.link_url} within "
                f"{READY_SECONDS_MAX:.0f} s: is that reached from it?"
            )
        status = reception.status
        if status is None or status.state is not RuntimeState.READY:
            words = f"{status.state}: {status.detail}" if status else "no word"
            raise ImageNotMade(f"The runtime {order.runtime} did not come up ({words}).\n{reception.last_lines}")
        self._say("its agent is asked a question")
        await reception.ask(str(uuid.uuid4()), PROBE_QUESTION)
        await until(_now(lambda: reception.result is not None), ANSWER_SECONDS_MAX)
        result = reception.result
        if result is None or result.outcome is not TurnOutcome.ANSWERED or not result.text.strip():
            words = (result_words(result) or "an empty answer") if result else "no answer"
            raise ImageNotMade(f"The agent did not answer the question ({words}).\n{reception.last_lines}")
        self._say("it answered")

    def _settled(self) -> bool:
        status = self._reception.status
        return status is not None and status.state in (RuntimeState.READY, RuntimeState.CRASH_LOOP)

    async def _stopped(self, machine_id: str, ask: bool) -> None:
        async def stopped() -> bool:
            with looked_again():
                if (await self._machines.look(machine_id)).state is MachineState.STOPPED:
                    return True
                if ask:
                    await self._machines.stop(machine_id)
            return False

        if not await until(stopped, STOPPED_SECONDS_MAX):
            raise ImageNotMade(f"The machine {machine_id} did not stop.\n{self._reception.last_lines}")

    async def _copied(self, servers: Servers, machine_id: str, image: str) -> None:
        if not await until(lambda: _told(servers.snapshot(machine_id, image)), COPIED_SECONDS_MAX):
            raise ImageNotMade(f"The provider did not copy the disk of {machine_id} within {COPIED_SECONDS_MAX:.0f} s.")

    async def _ended(self, machine_id: str) -> None:
        """Asked again at each look: a provider may have lost the first word."""

        async def gone() -> bool:
            seen = None
            with looked_again():
                await self._machines.delete(machine_id)
                seen = await self._machines.look(machine_id)
            return seen is not None and seen.state is MachineState.GONE

        with ending():
            is_gone = await until(gone, GONE_SECONDS_MAX)
        if not is_gone:
            raise ImageNotMade(f"The machine {machine_id} is still there after it was deleted: delete it by hand.")


async def _removed(image: str, remove: Removing) -> str:
    """What became of it, in words."""
    try:
        with ending():
            gone = await until(lambda: _told(remove()), GONE_SECONDS_MAX)
    except MachinesError as error:
        return f"The image {image} is no good, and could not be removed ({error})."
    if not gone:
        return f"The image {image} is no good, and is still there after it was removed."
    return f"The image {image} was removed."


def _now(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return condition()

    return look


async def _told(asked: Awaitable[bool]) -> bool:
    """A provider that does not answer is asked again."""
    told = False
    with looked_again():
        told = await asked
    return told  # noqa: RET504 - False where nothing was told
