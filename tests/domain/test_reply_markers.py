"""Markers of runtimes never leave in an answer; text that speaks of them does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.reply_markers import unmarked, without_markers
from tinyfat.domain.turns import Attachment, TurnOutcome, TurnResult

TOKENS = ("NO_REPLY", "HEARTBEAT_OK", "ANNOUNCE_SKIP", "REPLY_SKIP")

ONLY = [
    "{}", "  {}\n", "{}.", "**{}**", "`{}`", "```\n{}\n```", "```text\n{}\n```", "_{}_", '"{}"', "({})", "{}!", "{} {}",
    "{}\n\n{}", "*{}*\n", "> {}", "- {}", '{{"action": "{}"}}', "<think>Nobody asked.</think>\n{}", "~~{}~~", "# {}",
    "[[reply_to_current]] {}", "[[reply_to_current]]\n{}", "“{}”", "***{}***", "{}…",
    "\u200b{}", "{}\ufeff", "{} 🙂", "🤫 {}", "<{}/>", "• {}", "1. {}", "---\n{}", "{}</s>", "<|im_end|>{}",
    "Final answer: {}", "assistant: {}", '{{"reply": "{}"}}', "{}{}",
]  # fmt: skip


@pytest.mark.parametrize("token", [*TOKENS, "no_reply", "NO\\_REPLY", "Heartbeat_Ok"])
@pytest.mark.parametrize("shape", ONLY)
def test_an_answer_of_markers_alone_is_silence(shape: str, token: str) -> None:
    if "{{" not in shape or "\\" not in token:  # that would be no JSON
        assert without_markers(shape.format(token, token)) == ("", True)


MIXED = [
    ("The boat is in place.\n\n{}", "The boat is in place."),
    ("The boat is in place.\n{}\n", "The boat is in place."),
    ("The boat is in place. {}", "The boat is in place."),
    ("The boat is in place {}", "The boat is in place"),
    ("The boat is in place.\n\n**{}**", "The boat is in place."),
    ("The boat is in place. **{}**", "The boat is in place."),
    ("The boat is in place.\n\n`{}`.", "The boat is in place."),
    ("The boat is in place. {}.", "The boat is in place."),
    ("The boat is in place.\n\n{}\n\n{}", "The boat is in place."),
    ("The boat is in place. {} {}", "The boat is in place."),
    ("{}\n\nThe boat is in place.", "The boat is in place."),
    ("{} The boat is in place.", "The boat is in place."),
    ("{}The boat is in place.", "The boat is in place."),
    ("{}: The boat is in place.", "The boat is in place."),
    ("**{}** The boat is in place.", "The boat is in place."),
    ("{}\n{}\nThe boat is in place.\n{}", "The boat is in place."),
    ("The boat is in place.\n\n{}\n\nThe oars too.", "The boat is in place.\n\nThe oars too."),
    ("[[reply_to_current]] The boat is in place.", "The boat is in place."),
    ("[[reply_to: 123]]\nThe boat is in place.\n[[audio_as_voice]]", "The boat is in place."),
    ("{}: the boat is in place.", "the boat is in place."),
    ("{} — the boat is in place.", "the boat is in place."),
    ("\ufeff{}\n\n42", "42"),
    ("```\ncode\n```\n\n{}", "```\ncode\n```"),
    ("```\ncode\n```\n{}\n", "```\ncode\n```"),
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize(("text", "left"), MIXED)
def test_a_marker_at_an_answers_edge_is_taken_off(text: str, left: str, token: str) -> None:
    assert without_markers(text.format(token, token, token)) == (left, True)


CONTENT = [
    "NO_REPLY is the marker by which OpenClaw stays silent.",
    "`NO_REPLY` means that nothing is sent.",
    "The marker is called NO_REPLY.",
    "The marker is called `NO_REPLY`",
    "It answers with \"NO_REPLY\"",
    "Set the variable to NO_REPLY",
    "The two are NO_REPLY and HEARTBEAT_OK.",
    "You asked for the marker:\n\n```\nNO_REPLY\n```",
    "The marker:\n\n    NO_REPLY\n\nNothing else.",
    "You wrote:\n\n> NO_REPLY\n\nWhat did you mean?",
    "The marker it sends is:\n\nNO_REPLY",
    "Write to noreply@example.org or NO_REPLY@example.org.",
    "```python\nif text == NO_REPLY:\n    NO_REPLY\n```\nThis is the code.",
    "MY_NO_REPLY_TOKEN",
    "The list:\n- NO_REPLY\n- HEARTBEAT_OK",
    "There is no reply.", "No reply", "Heartbeat OK.", "Everything_OK",
    "A matrix [[1, 2], [3, 4]] and [[range]].", "My answer: the marker NO_REPLY is for silence.",
    '{"env": "NO_REPLY"}', "A word that\u200bbreaks: MY_NO_REPLY_TOKEN",
]  # fmt: skip


@pytest.mark.parametrize("text", CONTENT)
def test_a_text_that_speaks_of_a_marker_keeps_it(text: str) -> None:
    assert without_markers(text) == (text, False)


@given(st.text(st.sampled_from("a.N \n`*>:") | st.characters(), max_size=60), st.sampled_from(TOKENS))
def test_whatever_stands_before_a_line_of_its_own_stays(text: str, token: str) -> None:
    if not text.strip() or any(mark in text for mark in ("`", "~", ":", "：", "[[", "\r")):
        return
    left, found = without_markers(f"{text}\n\n{token}")
    assert found and token not in left


@given(st.text(max_size=200))
def test_text_without_a_marker_is_not_touched(text: str) -> None:
    if not any(word in text.upper() for word in ("_REPLY", "_OK", "_SKIP", "[[")):
        assert without_markers(text) == (text, False)


def test_a_directive_before_a_smile_is_an_answer() -> None:
    assert without_markers("[[reply_to_current]] 🙂") == ("🙂", True)


def test_what_an_older_box_sends_loses_its_markers_too() -> None:
    marked = TurnResult(TurnOutcome.ANSWERED, "Done.\n\nNO_REPLY")
    assert unmarked(marked).text == "Done."
    silent = unmarked(TurnResult(TurnOutcome.ANSWERED, "HEARTBEAT_OK"))
    assert (silent.outcome, silent.failure) == (TurnOutcome.SILENT, Failure(FailureId.SILENT))
    file = Attachment("a.txt", "text/plain", b"a")
    assert unmarked(TurnResult(TurnOutcome.ANSWERED, "NO_REPLY", (file,))).attachments == (file,)
    failed = TurnResult(TurnOutcome.FAILED, "NO_REPLY", failure=Failure(FailureId.TOO_LATE))
    assert unmarked(failed) == failed
