"""A box's part when its agent goes to another machine, or is exported: its state is handed over, or taken in.

    PUT  CONTROL_URL/box/state/MOVE_ID            the packed state, with Content-Digest (RFC 9530)
    GET  CONTROL_URL/box/state/MOVE_ID            the same, for the new machine
    POST CONTROL_URL/box/state/MOVE_ID/restored   the runtime runs on it
    POST CONTROL_URL/box/state/MOVE_ID/failed     in words

All with this machine's token. What the control plane orders is a state, not a command: the same order may come many
times. `moving.json` remembers it over a restart of the box: a runtime that was handed over must not write again.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from tinyfat.box.folder import BoxFolder, Identity
from tinyfat.box.logbook import Logbook
from tinyfat.box.pace import backoff
from tinyfat.box.private_file import write_private
from tinyfat.box.runtime import Places
from tinyfat.box.state_archive import PIECE_BYTES, ArchiveRefused, pack, restore, sha256_of
from tinyfat.box.workplace import Workplace
from tinyfat.domain.link import STATE_BYTES_MAX, STATE_PATH, MoveOrder, MovePart, content_digest

ATTEMPTS_MAX = 8
PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX = 0.5, 20.0
REQUEST_SECONDS_MAX = 120.0  # without a byte moving
ANSWER_BYTES_MAX = 4096
WORDS_CHARS_MAX = 1000


class MoveFailed(Exception):
    """The state could not be handed over or taken in."""


class Mover:
    def __init__(
        self,
        folder: BoxFolder,
        places: Places,
        identity: Identity,
        tls: ssl.SSLContext,
        logbook: Logbook,
        workplace: Workplace,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder.path
        self._places = places
        self._url = identity.link_url
        self._token = identity.link_token
        self._tls = tls
        self._logbook = logbook
        self._workplace = workplace
        self._now = now
        self._memory = folder.path / "moving.json"
        self._may_run = asyncio.Event()
        self._stop_wanted = asyncio.Event()
        self._is_still = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        for left in folder.path.glob("moving-*.tar.*"):
            left.unlink(missing_ok=True)
        self._order = self._remembered()
        self._run_again(self._order is None or self._order.part in (MovePart.NONE, MovePart.TAKE))

    # The supervisor's side: when the runtime may run, and when it is wanted still.

    async def until_it_may_run(self) -> None:
        while not self._may_run.is_set():
            self._is_still.set()
            await self._may_run.wait()
        self._is_still.clear()

    async def wants_it_still(self) -> None:
        await self._stop_wanted.wait()

    async def close(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    # The link's side.

    def ordered(self, order: MoveOrder) -> None:
        if order == self._order and (order.part in (MovePart.NONE, MovePart.WAIT) or self._working):
            return
        if order.part is MovePart.TAKE and self._taken() == order.move_id:
            self._begin(self._say_restored(order))
            return
        if order.part is MovePart.NONE and (self._order is None or self._order.part is MovePart.NONE):
            return
        if order.part is MovePart.NONE and self._order and self._order.part is not MovePart.TAKE:
            self._logbook.box("nothing more is asked of its state: the runtime goes on here")
        self._remember(order)
        match order.part:
            case MovePart.HAND_OVER:
                self._begin(self._hand_over(order))
            case MovePart.TAKE:
                self._begin(self._take(order))
            case MovePart.WAIT:
                self._run_again(False)
            case MovePart.NONE:
                if self._work is not None:
                    self._work.cancel()
                self._run_again(True)

    @property
    def _working(self) -> bool:
        return self._work is not None and not self._work.done()

    def _begin(self, work: object) -> None:
        if self._work is not None:
            self._work.cancel()
        self._work = asyncio.create_task(work)  # type: ignore[arg-type]

    def _run_again(self, may: bool) -> None:
        if may:
            self._stop_wanted.clear()
            self._may_run.set()
        else:
            self._may_run.clear()
            self._stop_wanted.set()

    async def _hand_over(self, order: MoveOrder) -> None:
        # Of this move alone: what was given up may still be packing, and a thread cannot be stopped.
        archive = self._folder / f"moving-out-{order.move_id}.tar.gz"
        try:
            self._run_again(False)
            await self._is_still.wait()
            self._logbook.box("the runtime is stopped; its state is handed over")
            digest = await asyncio.to_thread(pack, self._folder, archive)
            await self._attempt(lambda: self._put(order.move_id, archive, digest))
            self._logbook.box(f"its state was handed over: {archive.stat().st_size} bytes")
        except (OSError, MoveFailed, ArchiveRefused) as error:
            await self._say_failed(order, error)
        finally:
            archive.unlink(missing_ok=True)

    async def _take(self, order: MoveOrder) -> None:
        archive = self._folder / f"moving-in-{order.move_id}.tar.gz"
        try:
            self._run_again(False)
            await self._is_still.wait()
            await self._attempt(lambda: self._get(order, archive))
            await asyncio.to_thread(restore, archive, self._folder)
            write_private(self._folder / "taken.json", json.dumps({"move_id": order.move_id}))
            self._logbook.box("the state of the earlier machine is in its place")
            self._run_again(True)
            await self._say_restored(order)
        except (OSError, MoveFailed, ArchiveRefused) as error:
            self._run_again(True)
            await self._say_failed(order, error)
        finally:
            archive.unlink(missing_ok=True)

    async def _say_restored(self, order: MoveOrder) -> None:
        await self._workplace.until_ready()
        await self._attempt(lambda: self._post(order.move_id, "restored", {}))

    async def _say_failed(self, order: MoveOrder, error: Exception) -> None:
        words = f"{type(error).__name__}: {error}"[:WORDS_CHARS_MAX]
        self._logbook.box(f"the move to another machine failed: {words}")
        try:
            await self._attempt(lambda: self._post(order.move_id, "failed", {"detail": words}))
        except (OSError, MoveFailed) as lost:
            self._logbook.box(f"and the control plane could not be told: {lost}")

    async def _attempt(self, ask: Callable[[], None]) -> None:
        """Whole each time: an upload that broke begins anew. Raises MoveFailed, OSError."""
        for attempt in range(ATTEMPTS_MAX):
            try:
                await asyncio.to_thread(ask)
                return
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS_MAX - 1:
                    raise MoveFailed(f"the control plane does not take it: {error}") from error
            await asyncio.sleep(backoff(attempt, PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX))

    # HTTP, in threads.

    def _put(self, move_id: str, archive: Path, digest: str) -> None:
        with archive.open("rb") as body:
            headers = {
                "Content-Type": "application/gzip",
                "Content-Length": str(archive.stat().st_size),
                "Content-Digest": content_digest(digest),
            }
            self._ask("PUT", f"/{move_id}", headers, body).close()

    def _get(self, order: MoveOrder, archive: Path) -> None:
        connection, response = self._answer("GET", f"/{order.move_id}", {}, None)
        try:
            if not 0 < order.bytes <= STATE_BYTES_MAX:
                raise MoveFailed(f"{order.bytes} bytes are no size for a state")
            with archive.open("wb") as file:
                left = order.bytes
                while left and (piece := response.read(min(PIECE_BYTES, left))):
                    file.write(piece)
                    left -= len(piece)
        finally:
            connection.close()
        if sha256_of(archive) != order.sha256:
            raise OSError("what came is not what was handed over")

    def _post(self, move_id: str, word: str, body: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self._ask("POST", f"/{move_id}/{word}", headers, data).close()

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: IO[bytes] | bytes | None
    ) -> http.client.HTTPConnection:
        connection, _ = self._answer(method, path, headers, body)
        return connection

    def _answer(
        self, method: str, path: str, headers: dict[str, str], body: IO[bytes] | bytes | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Raises OSError, http.client.HTTPException for what may be tried again, MoveFailed for what may not."""
        parts = urlsplit(self._url)
        secure = parts.scheme == "wss"
        connection = (
            http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=REQUEST_SECONDS_MAX, context=self._tls
            )
            if secure
            else http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=REQUEST_SECONDS_MAX)
        )
        try:
            connection.request(method, STATE_PATH + path, body, {**headers, "Authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            if response.status < 300:
                return connection, response
            words = response.read(ANSWER_BYTES_MAX).decode("utf-8", "replace")
        except BaseException:
            connection.close()
            raise
        connection.close()
        if response.status >= 500 or response.status == 429:
            raise OSError(f"{response.status} {words}")
        raise MoveFailed(f"the control plane refused: {response.status} {words}")

    # What is remembered.

    def _remember(self, order: MoveOrder) -> None:
        self._order = order
        if order.part is MovePart.NONE:
            self._memory.unlink(missing_ok=True)
            return
        write_private(self._memory, json.dumps({"move_id": order.move_id, "part": order.part}))

    def _remembered(self) -> MoveOrder | None:
        try:
            body = json.loads(self._memory.read_text("utf-8"))
            return MoveOrder(str(body["move_id"]), MovePart(body["part"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _taken(self) -> str:
        try:
            return str(json.loads((self._folder / "taken.json").read_text("utf-8"))["move_id"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
