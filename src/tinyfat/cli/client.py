"""How a command asks the running control plane, and what it says where that fails."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from tinyfat.cli.home import Home
from tinyfat.settings import Settings

ANSWER_SECONDS_MAX = 60.0
DOWNLOAD_BYTES = 1024 * 1024


class CommandFailed(Exception):
    """The command could not be done."""

    exit_code = 1


class WrongUse(CommandFailed):
    """The command was asked for something that cannot be."""

    exit_code = 2


class NothingThere(CommandFailed):
    """What the command is about does not exist."""

    exit_code = 3


class Client:
    """`get("agents", name)` is GET /api/agents/<name>; the parts are quoted."""

    def __init__(self, settings: Settings) -> None:
        home = Home(settings.home)
        running = home.running()
        if running is None:
            raise CommandFailed(
                f"TinyFat does not run on {settings.home}. Start it with `tinyfat up`, then say this again."
            )
        self._where = running.http_url
        self._http = httpx2.Client(
            base_url=running.http_url,
            timeout=ANSWER_SECONDS_MAX,
            headers={"Authorization": f"Bearer {home.operator_token()}"},
            trust_env=False,  # it is on this host: no proxy belongs in between
        )

    def get(self, *parts: str, **query: Any) -> Any:
        return self._ask("GET", parts, params=query)

    def page(self, *parts: str, **query: Any) -> tuple[Any, bool]:
        """What is there, and whether there is more of it (RFC 8288: a link to what is next)."""
        response = self._answer("GET", parts, params=query)
        return _json(response), "next" in response.links

    def post(self, *parts: str, body: Any = None) -> Any:
        return self._ask("POST", parts, json=body)

    def delete(self, *parts: str) -> Any:
        return self._ask("DELETE", parts)

    def download(self, file: Path, sha256: str, *parts: str) -> None:
        """Into `file`, which is there. Raises CommandFailed where what came is not what `sha256` says; OSError."""
        digest = hashlib.sha256()
        try:
            with file.open("wb") as into, self._http.stream("GET", _path(parts)) as response:
                if not response.is_success:
                    response.read()
                    raise _failure(response.status_code)(_complaint(response))
                for piece in response.iter_bytes(DOWNLOAD_BYTES):
                    digest.update(piece)
                    into.write(piece)
                into.flush()
                os.fsync(into.fileno())
        except httpx2.HTTPError as error:
            raise CommandFailed(f"The download broke off ({type(error).__name__}). Say it again.") from None
        if digest.hexdigest() != sha256:
            raise CommandFailed("What came is not what was sent. Say it again.")

    def _ask(self, method: str, parts: tuple[str, ...], **more: Any) -> Any:
        return _json(self._answer(method, parts, **more))

    def _answer(self, method: str, parts: tuple[str, ...], **more: Any) -> httpx2.Response:
        try:
            response = self._http.request(method, _path(parts), **more)
        except httpx2.HTTPError as error:
            raise CommandFailed(
                f"TinyFat does not answer at {self._where} ({type(error).__name__}). Is `tinyfat up` running?"
            ) from None
        if response.is_success:
            return response
        if response.status_code in (307, 404) and not _says_error(response):
            # No such route: a name with a slash in it, or an empty one (which is redirected).
            raise NothingThere(f"There is no {'/'.join(parts)!r}. `tinyfat agent list` shows what there is.")
        raise _failure(response.status_code)(_complaint(response))


def _path(parts: tuple[str, ...]) -> str:
    return "/api/" + "/".join(quote(part, safe="") for part in parts)


def _failure(status: int) -> type[CommandFailed]:
    return {404: NothingThere, 422: WrongUse, 400: WrongUse}.get(status, CommandFailed)


def _json(response: httpx2.Response) -> Any:
    """Raises CommandFailed: something else than TinyFat may listen there."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise CommandFailed(f"What listens at {response.url.host}:{response.url.port} is no TinyFat.") from None


def _says_error(response: httpx2.Response) -> bool:
    body = _error_body(response)
    return isinstance(body, dict) and "error" in body


def _complaint(response: httpx2.Response) -> str:
    body = _error_body(response)
    if isinstance(body, dict) and body:
        return str(body.get("error") or body.get("detail") or body)
    return f"TinyFat answered {response.status_code}; its log tells more (`tinyfat up` prints it)."


def _error_body(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
