from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinyfat.box.runtimes.pi import models_file
from tinyfat.box.runtimes.pi_session import Session, read_answer
from tinyfat.domain.link import ModelAccess, RuntimeSpec


def entry(role: str, text: str, stop_reason: str | None = None, second: int = 0, **more: Any) -> dict[str, Any]:
    message = {"role": role, "content": [{"type": "text", "text": text}], "stopReason": stop_reason, **more}
    return {"type": "message", "timestamp": f"2026-11-23T06:36:{second:02}.500Z", "message": message}


QUESTION = entry("user", "What?", second=1)
USAGE = {"input": 10, "output": 2, "totalTokens": 12}
ANSWER = entry("assistant", "That.", "stop", second=3, usage=USAGE)
LOOKING = entry("assistant", "Let me look.", "toolUse", second=2, usage=USAGE)
LOOKED = entry("toolResult", "found")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path, "email:thread/../x")


def write(session: Session, *entries: dict[str, Any]) -> None:
    with session.file.open("a") as file:
        for one in entries:
            file.write(json.dumps(one) + "\n")


def texts(session: Session) -> list[str]:
    lines = session.file.read_text().splitlines() if session.file.exists() else []
    return [json.loads(line)["message"]["content"][0]["text"] for line in lines]


def test_an_answer_is_the_models_last_word() -> None:
    answer = read_answer([QUESTION, LOOKING, LOOKED, ANSWER])

    assert answer is not None
    assert (answer.text, answer.failed) == ("That.", False)
    assert answer.answered_at - answer.received_at == 2.0
    assert answer.usage == {"input": 20, "output": 4, "total": 24}


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [QUESTION],
        [ANSWER],
        [QUESTION, LOOKING],
        [QUESTION, LOOKING, LOOKED],
        [QUESTION, entry("assistant", "That", "aborted")],
        [QUESTION, {"type": "message", "message": "nonsense"}],
    ],
)
def test_without_a_last_word_there_is_no_answer(entries: list[dict[str, Any]]) -> None:
    assert read_answer(entries) is None


def test_an_error_is_an_answer_too() -> None:
    answer = read_answer([QUESTION, entry("assistant", "", "error", errorMessage="429: slow down")])

    assert answer is not None
    assert (answer.failed, answer.detail) == (True, "429: slow down")


def test_each_turn_finds_its_own_answer(session: Session) -> None:
    session.begin("t1")
    write(session, QUESTION, ANSWER)
    session.begin("t2")
    write(session, entry("user", "And?"), entry("assistant", "This.", "stop"))

    found = [session.earlier(turn_id) for turn_id in ("t1", "t2", "t3")]
    assert [answer.text if answer else None for answer in found] == ["That.", "This.", None]


def test_an_unfinished_attempt_is_cut_off_before_the_next(session: Session) -> None:
    session.begin("t1")
    write(session, QUESTION, ANSWER)
    session.begin("t2")
    write(session, entry("user", "And?"), LOOKING)

    assert session.earlier("t2") is None
    session.begin("t2")
    assert texts(session) == ["What?", "That."]
    write(session, entry("user", "And?"), entry("assistant", "This.", "stop"))
    again = session.earlier("t2")
    assert again is not None
    assert again.text == "This."


def test_a_first_attempt_that_broke_leaves_no_session(session: Session) -> None:
    session.begin("t1")
    write(session, QUESTION)
    session.begin("t1")

    assert not session.file.exists()


def test_a_line_cut_in_the_middle_is_no_answer(session: Session) -> None:
    session.begin("t1")
    write(session, QUESTION)
    with session.file.open("a") as file:
        file.write(json.dumps(ANSWER)[:-20])

    assert session.earlier("t1") is None


def test_a_session_has_one_writer(session: Session) -> None:
    with session.try_lock() as first:
        assert first is not None
        with session.try_lock() as second:
            assert second is None
    with session.try_lock() as third:
        assert third is not None


def test_no_session_key_leads_out_of_the_folder(session: Session, tmp_path: Path) -> None:
    assert session.file.parent == tmp_path
    assert session.file != Session(tmp_path, "email:other").file


def test_the_models_file_names_the_key_and_holds_none() -> None:
    spec = RuntimeSpec("pi", "ada", ModelAccess("anthropic-messages", "https://x", "sk-secret", "m"), 0)

    made = models_file(spec)

    assert made == {
        "providers": {
            "host": {
                "baseUrl": "https://x",
                "api": "anthropic-messages",
                "apiKey": "$TINYFAT_MODEL_KEY",
                "headers": {"x-session-affinity": "$TINYFAT_SESSION"},
                "models": [{"id": "m", "input": ["text", "image"], "contextWindow": 128000, "maxTokens": 8192}],
            }
        }
    }
