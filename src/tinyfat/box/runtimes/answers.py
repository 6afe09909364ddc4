"""What a runtime said at the end of a turn, as the turn's result: no markers, and a note on missing files. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tinyfat.box.runtimes.media import Collected
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure, files_left_out
from tinyfat.domain.reply_markers import without_markers
from tinyfat.domain.turns import TurnOutcome, TurnResult

DETAIL_CHARS_MAX = 4000
NOTHING_SAID = Failure(FailureId.EMPTY_ANSWER)
SILENT = Failure(FailureId.SILENT)


@dataclass(frozen=True, slots=True)
class Said:
    text: str  # Markdown, without its MEDIA lines
    files: Collected
    received_at: float  # Unix seconds
    answered_at: float
    usage: dict[str, Any] = field(default_factory=dict)


def answer_of(said: Said) -> TurnResult:
    """Answered where words, files or a note on files are left; silent where a marker was all; else a failure."""
    text, marked = without_markers(said.text)
    refused = said.files.refused
    if refused:
        note = f"[{files_left_out(refused).text()}]"
        text = f"{text.rstrip()}\n\n{note}" if text.strip() else note
    if text.strip() or said.files.attachments:
        outcome, failure = TurnOutcome.ANSWERED, None
    else:
        outcome, failure = (TurnOutcome.SILENT, SILENT) if marked else (TurnOutcome.FAILED, NOTHING_SAID)
    return TurnResult(
        outcome,
        text if failure is None else "",
        said.files.attachments,
        failure,
        "\n".join(f"attachment {name!r} left out: {why}" for name, why in refused.items())[:DETAIL_CHARS_MAX],
        said.received_at,
        said.answered_at,
        said.usage,
    )
