"""The HTTP API of a Docker Engine, the part we use; Podman answers it too. https://docs.docker.com/reference/api/engine/

Version 1.41 is asked for, which Docker 20.10 and Podman 4 know.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from tinyfat.ports.machines import MachineRefused, MachinesUnreachable

API = "/v1.41"
ANSWER_SECONDS_MAX = 30.0
IMPORT_SECONDS_MAX = 900.0
ARCHIVE_BYTES_MAX = 1024 * 1024  # of one small file asked back
_ERROR_CHARS_MAX = 500


class NotThere(MachineRefused):
    """The engine knows no container or image of this name."""


class DockerEngine:
    """`url`: unix:///var/run/docker.sock, or http://HOST:PORT. Raises MachineRefused, MachinesUnreachable."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("unix", "http", "https"):
            raise MachineRefused(f"{url!r} is no engine: name unix:///PATH or http://HOST:PORT.")
        self.url = url
        unix = parts.scheme == "unix"
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=parts.path) if unix else None,
            base_url=("http://engine" if unix else url.rstrip("/")) + API,
            timeout=ANSWER_SECONDS_MAX,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def container(self, name: str) -> dict[str, Any] | None:
        return await self._found("GET", f"/containers/{quote(name)}/json")

    async def image(self, name: str) -> dict[str, Any] | None:
        return await self._found("GET", f"/images/{quote(name)}/json")

    async def labelled(self, label: str) -> list[str]:
        """The ids of containers that bear this label, running or not."""
        params = {"all": "true", "filters": json.dumps({"label": [label]})}
        answer = await self._ask("GET", "/containers/json", params=params)
        return [str(one["Id"]) for one in answer.json()]

    async def remove_image(self, name: str) -> None:
        """Nothing is done where it is not there, or a container is made of it (409)."""
        await self._ask("DELETE", f"/images/{quote(name, safe=':')}", fine=(404, 409))

    async def create(self, name: str, body: Mapping[str, Any]) -> None:
        """Nothing is done where the name is taken. Raises NotThere where the image is missing."""
        await self._ask("POST", "/containers/create", params={"name": name}, json=dict(body), fine=(409,))

    async def start(self, name: str) -> None:
        await self._ask("POST", f"/containers/{quote(name)}/start", fine=(304,))

    async def signal(self, name: str, signal: str) -> None:
        """Nothing is done where it does not run (409) or is not there (404)."""
        await self._ask("POST", f"/containers/{quote(name)}/kill", params={"signal": signal}, fine=(404, 409))

    async def remove(self, name: str) -> None:
        """Nothing is done where it is not there, or is being removed already (409)."""
        params = {"force": "true", "v": "true"}
        await self._ask("DELETE", f"/containers/{quote(name)}", params=params, fine=(404, 409))

    async def put(self, name: str, folder: str, tar: bytes) -> None:
        """Unpack it in the container, which need not run."""
        await self._ask("PUT", f"/containers/{quote(name)}/archive", params={"path": folder}, content=tar)

    async def file(self, name: str, path: str) -> bytes | None:
        """None: it is not there."""
        try:
            answer = await self._ask("GET", f"/containers/{quote(name)}/archive", params={"path": path})
        except NotThere:
            return None
        if len(answer.content) > ARCHIVE_BYTES_MAX:
            return None
        try:
            with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
                member = tar.next()
                held = tar.extractfile(member) if member is not None and member.isreg() else None
                return held.read() if held else None
        except tarfile.TarError:
            return None

    async def import_image(self, repository: str, tag: str, changes: list[str], tar: AsyncIterator[bytes]) -> None:
        """`changes`: lines of a Dockerfile, such as LABEL."""
        params = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes}
        await self._ask("POST", "/images/create", params=params, content=tar, timeout=IMPORT_SECONDS_MAX)
        if await self.image(f"{repository}:{tag}") is None:
            raise MachinesUnreachable(
                f"The engine at {self.url} took the image {repository}:{tag} and does not list it."
            )

    async def _found(self, method: str, path: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = (await self._ask(method, path)).json()
            return found
        except NotThere:
            return None

    async def _ask(self, method: str, path: str, *, fine: tuple[int, ...] = (), **more: Any) -> httpx2.Response:
        try:
            answer = await self._client.request(method, path, **more)
        except (httpx2.HTTPError, OSError) as error:
            raise MachinesUnreachable(
                f"The engine at {self.url} does not answer ({type(error).__name__}: {error}): is it running?"
            ) from error
        if answer.is_success or answer.status_code in fine:
            return answer
        words = f"The engine at {self.url} answered {answer.status_code} to {method} {path}: {_message(answer)}"
        if answer.status_code == 404:
            raise NotThere(words)
        raise (MachineRefused if answer.status_code in (400, 403) else MachinesUnreachable)(words)


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["message"])[:_ERROR_CHARS_MAX]
    except (ValueError, KeyError, TypeError):
        return answer.text[:_ERROR_CHARS_MAX]
