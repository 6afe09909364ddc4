"""A control plane of newer code comes up beside boxes that its predecessor began."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

import tinyfat
from tests.running import OWNER, TinyFat, letter, until
from tests.stories.town import Operator, PostOffice, new_id
from tinyfat.drivers.machines.process import ProcessMachines

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
FIRST = "Your first message here began: The boat is called Nordlicht."
ADA = "ada@tinyfat.localhost"


def of_other_code(folder: Path) -> Path:
    """All of the package, and one file of what a box runs is another."""
    shutil.copytree(Path(tinyfat.__file__).parent, folder / "tinyfat", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "tinyfat" / "box" / "pace.py").open("a") as file:
        file.write("\n# Of the version before.\n")
    return folder


async def told(tinyfat: TinyFat, office: PostOffice, text: str, references: str = "") -> tuple[str, str]:
    """The reply's Message-ID, and its text."""
    message_id = new_id()
    await tinyfat.send(letter(text, to=ADA, message_id=message_id, references=references), mail_from=OWNER)
    reply = await office.reply_to(message_id)
    return reply.message_id, reply.text


async def test_a_box_of_other_code_is_started_anew_once_and_the_conversation_goes_on(tmp_path: Path) -> None:
    async with PostOffice() as office:
        tinyfat = TinyFat(tmp_path / "home", TINYFAT_SMARTHOST=f"127.0.0.1:{office.port}")
        own_path = tinyfat.environment.pop("PYTHONPATH", "")
        tinyfat.environment["PYTHONPATH"] = str(of_other_code(tmp_path / "before"))
        async with tinyfat, Operator(tinyfat) as operator:
            agent = await operator.make_agent("ada")
            machines = ProcessMachines(tinyfat.home / "machines", tmp_path / "shared", time.monotonic)

            async def runs() -> str:
                """Which processes."""
                return (await machines.look(agent["machine"]["id"])).detail

            first, _ = await told(tinyfat, office, "The boat is called Nordlicht.")
            before = await runs()
            await tinyfat.kill()
            tinyfat.environment["PYTHONPATH"] = own_path
            await tinyfat.start()

            async def anew() -> bool:
                return "box" in await runs() and await runs() != before

            await until(anew, 60.0, "the box is another process")
            first, said = await told(tinyfat, office, "And now?", first)
            assert FIRST in said
            after = await runs()
            await tinyfat.kill()
            await tinyfat.start()
            _, said = await told(tinyfat, office, "And once more?", first)
            assert FIRST in said and await runs() == after
        assert "Traceback" not in tinyfat.log.read_text()
