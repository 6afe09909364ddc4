"""One TinyFat for most stories, and a hasty one with small limits beside it; each story has an agent of its own.

Workers steal tests, and one that comes back to a module sets up what is of the module's scope again: an agent of the
house is made by a fixture of the session's scope, and a home of a module's own is another folder each time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.certificates import certificate
from tests.running import TinyFat
from tests.stories.town import House, Operator, PostOffice

INBOUND_SECRET = "a secret of the stories"
HEARD_FROM = "198.51.100.7"  # as a provider tells it that hands in mail by HTTP; the house trusts its network
SIZE_MAX = 400_000  # bytes
TURN_SECONDS = 4  # the hasty one's patience
THREAD_CAP, SENDER_CAP = 6, 8  # turns an hour, the hasty one's


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def office() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stories")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(office: PostOffice, stories: Path) -> AsyncIterator[House]:
    made = certificate(stories)
    tinyfat = TinyFat(
        stories / "house",
        TINYFAT_SMARTHOST=f"127.0.0.1:{office.port}",
        TINYFAT_SMTP_CERTIFICATE=str(made.certificate),
        TINYFAT_SMTP_CERTIFICATE_KEY=str(made.key),
        TINYFAT_INBOUND_SECRET=INBOUND_SECRET,
        TINYFAT_MAIL_TRUST="127.0.0.0/8, ::1/128, 198.51.100.0/24",
        TINYFAT_MAIL_SIZE_MAX=str(SIZE_MAX),
    )
    async with tinyfat, Operator(tinyfat) as operator:
        yield House(tinyfat, office, operator)
    assert "Traceback" not in tinyfat.log.read_text()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hasty(office: PostOffice, stories: Path) -> AsyncIterator[House]:
    tinyfat = TinyFat(
        stories / "hasty",
        TINYFAT_DOMAIN="hasty.localhost",
        TINYFAT_SMARTHOST=f"127.0.0.1:{office.port}",
        TINYFAT_TURN_DEADLINE=str(TURN_SECONDS),
        TINYFAT_MAIL_RATE_THREAD=str(THREAD_CAP),
        TINYFAT_MAIL_RATE_SENDER=str(SENDER_CAP),
    )
    async with tinyfat, Operator(tinyfat) as operator:
        yield House(tinyfat, office, operator, "hasty.localhost")
    assert "Traceback" not in tinyfat.log.read_text()
