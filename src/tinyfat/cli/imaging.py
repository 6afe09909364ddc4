"""What `tinyfat image` does. It imports a fifth of TinyFat, which no other command needs: so its commands are apart."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tinyfat import image_builds
from tinyfat.api.image_reception import ImageReception, reception_app
from tinyfat.cli.client import CommandFailed
from tinyfat.cli.home import Home, HomeRefused
from tinyfat.cli.serving_http import http_served
from tinyfat.image_builds import Built, ImageBuilds, ImageFailed, ImageList, Listed
from tinyfat.image_wiring import ReceptionTerms
from tinyfat.listen_address import Address
from tinyfat.settings import Settings

T = TypeVar("T")


def build(
    settings: Settings, driver: str, runtime: str, engine: str, listen: Address | None, url: str,
    say: Callable[[str], None],
) -> Built:  # fmt: skip
    """Raises CommandFailed."""
    builds = ImageBuilds(settings, served_reception, say)
    try:
        return _asked(_build(builds, settings, driver, runtime, engine, listen, url))
    except asyncio.CancelledError as error:
        raise CommandFailed("Interrupted: its machines were ended, and no image was made.") from error


async def _build(
    builds: ImageBuilds, settings: Settings, driver: str, runtime: str, engine: str, listen: Address | None, url: str
) -> Built:
    """SIGTERM, as Ctrl-C, ends it in order: machines cost money."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    match driver:
        case "docker":
            return await builds.in_engine(engine or settings.docker_url, runtime)
        case "hetzner":
            return await builds.at_hetzner(runtime, _secret(settings), listen, url)
        case _:
            return await builds.on_this_host(driver, runtime)


@asynccontextmanager
async def served_reception(terms: ReceptionTerms) -> AsyncIterator[ImageReception]:
    reception = ImageReception(terms)
    tls = terms.tls.context if terms.tls else None
    async with http_served("reception", reception_app(reception, terms), terms.listener, tls):
        yield reception


def freeze(settings: Settings, name: str, say: Callable[[str], None]) -> None:
    """Raises CommandFailed."""
    _asked(image_builds.freeze(settings, name, say))


def listed(settings: Settings, driver: str) -> list[Listed]:
    """Raises CommandFailed."""
    return list(_asked(_images(settings, driver).all()))


def prune(settings: Settings, driver: str, keep: int) -> tuple[list[str], list[str]]:
    """What went, and why what else stayed. Raises CommandFailed."""
    return _asked(_images(settings, driver).prune(keep))


def _images(settings: Settings, driver: str) -> ImageList:
    return ImageList(settings, driver, lambda: _secret(settings))


def _asked(asking: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(asking)
    except ImageFailed as error:
        raise CommandFailed(str(error)) from error


def _secret(settings: Settings) -> bytes:
    home = Home(settings.home)
    try:
        home.make()
    except HomeRefused as error:
        raise CommandFailed(str(error)) from error
    return home.secret()
