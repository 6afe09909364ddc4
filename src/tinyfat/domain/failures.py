"""The failures a person can read about by mail or chat: a closed list, each with its words and the next step.

A box, a relay or a flow names a failure by its id and a few fields; the words are made here and nowhere else, so no
free text of a box or a vendor reaches a person as bad news. docs/failures.md lists the same; a test compares the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tinyfat.domain.failure_kinds import KINDS, FailureId
from tinyfat.domain.mail.charsets import one_line

FIELD_CHARS_MAX = 200  # of one field's text
NAMES_MAX = 20  # files named in one sentence; more are counted
FIELDS_MAX = 10  # of one failure, as another side sends it
MOMENT_MAX = 253_402_300_799  # Unix time of the end of the year 9999

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure. `fields` fill the template: numbers, or short texts that are cleaned when they are shown."""

    id: FailureId
    fields: Mapping[str, Value] = field(default_factory=dict)

    def words(self, agent: str = "") -> str:
        """What happened, for its reader."""
        kind = KINDS[self.id]
        shown = self._shown(agent)
        return kind.words.format_map(shown) + "".join(
            sentence.format_map(shown) for name, sentence in kind.clauses if self.fields.get(name)
        )

    def help(self, agent: str = "") -> str:
        """The next step of its reader."""
        return KINDS[self.id].help.format_map(self._shown(agent))

    def text(self, agent: str = "") -> str:
        """Both, for a place that has one paragraph."""
        return f"{self.words(agent)} {self.help(agent)}".strip()

    def subject(self, agent: str = "") -> str:
        """Of a mail of its own; "" for a kind that is never one."""
        return KINDS[self.id].subject.format_map(self._shown(agent))

    def _shown(self, agent: str) -> _Shown:
        return _Shown({"agent": agent or "The agent", **{name: _show(name, v) for name, v in self.fields.items()}})

    def written(self) -> str:
        """As it crosses a link and lies in the ledger; `read_failure` reads it."""
        return json.dumps({"id": self.id, "fields": dict(self.fields)})


class _Shown(dict[str, str]):
    """A field that the failure came without is left out of its sentence, and nothing breaks."""

    def __missing__(self, key: str) -> str:
        return _WITHOUT.get(key, "")


# What stands for a field that is not known.
_WITHOUT = {"until": "for now", "minutes": "some", "files": "a file"}


def read_failure(written: str) -> Failure | None:
    """None for "". An id that is not known, and any free text (of boxes older than this list), is `turn-failed`."""
    if not written:
        return None
    try:
        body = json.loads(written)
        failure_id = FailureId(body["id"])
        given = body.get("fields", {})
        fields = {str(name)[:50]: value for name, value in list(given.items())[:FIELDS_MAX] if _is_plain(value)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Failure(_OLD_WORDS.get(written[:60], FailureId.TURN_FAILED))
    return Failure(failure_id, {name: v[:FIELD_CHARS_MAX] if isinstance(v, str) else v for name, v in fields.items()})


# The beginnings (60 characters) of what boxes said before this list was made.
_OLD_WORDS = {
    "The agent's model could not answer. Please try again later."[:60]: FailureId.MODEL_FAILED,
    "The agent finished without an answer."[:60]: FailureId.EMPTY_ANSWER,
    "The agent's runtime could not take this message."[:60]: FailureId.MESSAGE_REFUSED,
}


def files_left_out(named: Mapping[str, str]) -> Failure:
    """`named`: each file's name as the agent wrote it, and why it could not be attached."""
    shown = [f"{_name(name)} ({one_line(why, 100)})" for name, why in list(named.items())[:NAMES_MAX]]
    more = len(named) - len(shown)
    return Failure(FailureId.FILES_LEFT_OUT, {"files": "; ".join(shown) + (f"; and {more} more" if more > 0 else "")})


def _name(name: str) -> str:
    """The last part of a path: where it lay is nobody's business who gets the mail."""
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[<>\[\]()`*_]", "_", one_line(last, 80)) or "a file"


def _is_plain(value: object) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return -MOMENT_MAX <= value <= MOMENT_MAX
    return isinstance(value, str)


def _show(name: str, value: Value) -> str:
    if name == "until":
        return _moment(value)
    if isinstance(value, str):
        return one_line(value, FIELD_CHARS_MAX if name != "files" else FIELD_CHARS_MAX * NAMES_MAX)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _moment(value: Value) -> str:
    """Unix seconds as a minute of UTC, rounded up: nobody is to come too early."""
    if isinstance(value, str) or not 0 < value <= MOMENT_MAX - 60:
        return _WITHOUT["until"]
    at = datetime.fromtimestamp(-(-value // 60) * 60, UTC)
    return f"until {at:%H:%M} UTC on {at.day} {at:%B %Y}"
