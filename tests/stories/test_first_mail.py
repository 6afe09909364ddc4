"""The main job, with the echo runtime: a mail in, the reply out, a second one that knows the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mailbox import Mailbox
from tests.running import TinyFat, letter

pytestmark = pytest.mark.story


async def test_two_mails_of_a_thread_are_answered(tmp_path: Path) -> None:
    async with (
        Mailbox() as mailbox,
        TinyFat(tmp_path / "home", TINYFAT_SMARTHOST=f"127.0.0.1:{mailbox.port}") as tinyfat,
    ):
        agent = await tinyfat.make_agent("ada")
        assert agent["state"] == "ready"
        await tinyfat.send(letter("My boat is called Heron.", message_id="<first@example.org>"))
        (first,) = await mailbox.wait_for(1)
        assert first.in_reply_to == "<first@example.org>"
        assert first.message["Subject"] == "Re: Hello"
        await tinyfat.send(letter("What is its name?", message_id="<second@example.org>", in_reply_to=first.message_id))
        _, second = await mailbox.wait_for(2)
        assert "Heron" in second.text and "turn 2 of this conversation" in second.text
        assert str(second.message["References"]).split()[-1] == "<second@example.org>"
        assert [m["state"] for m in await tinyfat.mail("ada")] == ["answered", "sent", "answered", "sent"]
        assert len({m["thread"] for m in await tinyfat.mail("ada")}) == 1
