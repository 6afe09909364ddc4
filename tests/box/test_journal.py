from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tinyfat.box.journal import Journal, TurnPhase
from tinyfat.domain.link import TurnAnswer
from tinyfat.domain.link_json import encode
from tinyfat.domain.turns import Attachment, Turn, TurnOutcome, TurnResult


def turn(turn_id: str) -> Turn:
    return Turn(turn_id, "email:1", "hello", 60.0, (Attachment("a.bin", "application/octet-stream", b"\0\xff"),))


def answer(turn_id: str) -> str:
    return encode(TurnAnswer(turn_id, TurnResult(TurnOutcome.ANSWERED, "hi")))


def test_a_turn_from_offer_to_settlement(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    assert journal.phase("t") is None
    journal.take(turn("t"), 100.0, asked=False)
    assert journal.phase("t") is TurnPhase.RECEIVED
    assert [(held.turn, held.deadline_at, held.asked) for held in journal.unfinished()] == [(turn("t"), 100.0, False)]
    journal.mark_asked("t")
    assert [held.asked for held in journal.unfinished()] == [True]
    journal.answer("t", answer("t"))
    assert journal.unfinished() == []
    assert journal.answered() == journal.held() == ("t",)
    journal.answer("t", "another")
    assert journal.result("t") == answer("t")
    journal.settle("t")
    assert journal.phase("t") is TurnPhase.SETTLED
    assert journal.result("t") is None
    assert journal.held() == ()


def test_what_was_written_is_there_for_the_next_box(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j")
    first.take(turn("a"), 1.0, asked=True)
    first.take(turn("b"), 2.0, asked=False)
    first.take(turn("c"), 3.0, asked=False)
    first.answer("b", answer("b"))
    # No close: a killed box closes nothing.
    second = Journal(tmp_path / "j")
    assert [held.turn.id for held in second.unfinished()] == ["a", "c"]
    assert second.answered() == ("b",)
    assert second.held() == ("a", "b", "c")


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.take(turn("a"), 1.0, asked=True)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_the_content_of_settled_turns_is_gone_and_their_ids_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyfat.box.journal.SETTLED_KEPT_MAX", 5)
    journal = Journal(tmp_path / "j")
    for number in range(20):
        journal.take(turn(str(number)), 1.0, asked=True)
        journal.answer(str(number), answer(str(number)))
        if number != 3:
            journal.settle(str(number))
    again = Journal(tmp_path / "j")
    rows = sqlite3.connect(tmp_path / "j").execute("SELECT id, offer, result FROM turns ORDER BY position").fetchall()
    assert [row[0] for row in rows] == ["3", "15", "16", "17", "18", "19"]
    assert all(row[1] == "" for row in rows)
    assert [row[2] != "" for row in rows] == [True, False, False, False, False, False]
    assert again.held() == ("3",)


class JournalMachine(RuleBasedStateMachine):
    """Against a dictionary; the journal is opened anew now and then, as by a box that was killed."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "j"
        self.journal = Journal(self.path)
        self.phases: dict[str, TurnPhase] = {}
        self.order: list[str] = []

    ids = st.sampled_from("abcde")

    @rule(turn_id=ids, asked=st.booleans())
    def take(self, turn_id: str, asked: bool) -> None:
        if self.phases.get(turn_id) in (None, TurnPhase.SETTLED):
            self.journal.take(turn(turn_id), 1.0, asked)
            self.phases[turn_id] = TurnPhase.ASKED if asked else TurnPhase.RECEIVED
            self.order = [one for one in self.order if one != turn_id] + [turn_id]

    @rule(turn_id=ids)
    def ask(self, turn_id: str) -> None:
        self.journal.mark_asked(turn_id)
        if self.phases.get(turn_id) is TurnPhase.RECEIVED:
            self.phases[turn_id] = TurnPhase.ASKED

    @rule(turn_id=ids)
    def answer(self, turn_id: str) -> None:
        self.journal.answer(turn_id, answer(turn_id))
        if self.phases.get(turn_id) in (TurnPhase.RECEIVED, TurnPhase.ASKED):
            self.phases[turn_id] = TurnPhase.ANSWERED

    @rule(turn_id=ids)
    def settle(self, turn_id: str) -> None:
        self.journal.settle(turn_id)
        if turn_id in self.phases:
            self.phases[turn_id] = TurnPhase.SETTLED

    @rule()
    def open_again(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path)

    @invariant()
    def agrees(self) -> None:
        held = tuple(one for one in self.order if self.phases[one] is not TurnPhase.SETTLED)
        assert self.journal.held() == held
        assert {one: self.journal.phase(one) for one in self.phases} == self.phases
        unfinished = [one for one in held if self.phases[one] is not TurnPhase.ANSWERED]
        assert [one.turn.id for one in self.journal.unfinished()] == unfinished
        assert [one.asked for one in self.journal.unfinished()] == [
            self.phases[one] is TurnPhase.ASKED for one in unfinished
        ]

    def teardown(self) -> None:
        self.journal.close()
        self.folder.cleanup()


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=15, stateful_step_count=15)
