"""The echo runtime: its script, and its memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.box.runtimes.echo_script import Script, body_of, compose, read_script
from tinyfat.box.runtimes.echo_store import EchoSession, EchoStore

HEADER = "From: Bob <bob@example.org>\nTo: ada@example.org\nSubject: echo: hang\n\n"


@pytest.mark.parametrize(
    ("line", "script"),
    [
        ("echo: sleep 2.5", Script(sleep_seconds=2.5)),
        ("echo: fail", Script(fail=True)),
        ("echo: crash", Script(crash=True)),
        ("echo: crash always", Script(crash_always=True)),
        ("echo: hang", Script(hang=True)),
        ("echo: say  Hello, world ", Script(say="Hello, world")),
        ("echo: say", Script(say="")),
        ("echo: attach report.pdf 1000", Script(attach=(("report.pdf", 1000),))),
        ("echo: attach ../secret 1", Script()),
        ("echo: attach .. 1", Script()),
        ("echo: sleep forever", Script()),
        ("echo: dance", Script()),
        ("> echo: hang", Script()),
        ("he said echo: hang", Script()),
    ],
)
def test_orders(line: str, script: Script) -> None:
    assert read_script(f"{HEADER}Hello\n{line}\nBye") == script
    assert read_script(line) == script


def test_several_orders_in_one_question() -> None:
    script = read_script(HEADER + "echo: sleep 1\necho: attach a 1\necho: attach b 2\necho: say hi")
    assert script == Script(say="hi", sleep_seconds=1.0, attach=(("a", 1), ("b", 2)))


def test_the_header_part_is_not_the_body() -> None:
    assert body_of(HEADER + "Hello\n\nyou") == "Hello\n\nyou"
    assert body_of(HEADER.replace("\n", "\r\n") + "Hello") == "Hello"
    assert body_of("Hello\n\nyou") == "Hello\n\nyou"
    assert body_of("From: nobody") == ""


def test_the_answer_knows_its_conversation() -> None:
    first = compose(HEADER + "My boat is Heron.", [], [("a.txt", 5)], Script())
    assert first == "My boat is Heron.\n\nFiles with it: a.txt (5 bytes)\n\n(turn 1 of this conversation)"
    third = compose("What?", [HEADER + "My boat\nis Heron.", "two"], [], Script(attach=(("x", 1),)))
    assert third == (
        "What?\n\n(turn 3 of this conversation)\n\nYour first message here began: My boat is Heron.\nMEDIA:./out/x"
    )


@given(st.text(max_size=300))
def test_any_question_has_an_answer(question: str) -> None:
    assert "turn 1" in compose(question, [], [], read_script("From: a\n\nb"))
    read_script(question)


@given(st.integers(0, 400))
def test_rows_survive_a_kill_in_mid_write(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = EchoStore(Path(folder))
        session = store.session("email:1")
        rows = [{"role": "user", "key": str(number), "text": "é"} for number in range(5)]
        for row in rows:
            session.append(row)
        path = next(Path(folder).glob("sessions/*.jsonl"))
        content = path.read_bytes()
        path.write_bytes(content[: min(cut, len(content))])
        again = EchoSession.load(path)
        kept = again.rows if again else []
        assert kept == rows[: len(kept)]
        fresh = EchoStore(Path(folder)).session("email:1")
        fresh.append({"role": "user", "key": "next", "text": "x"})
        loaded = EchoStore(Path(folder)).sessions["email:1"]
        assert [row["key"] for row in loaded.rows] == [row["key"] for row in kept] + ["next"]
