from __future__ import annotations

from pathlib import Path

import pytest

from tinyfat.box.journal import Journal
from tinyfat.box.logbook import RING_LINES_MAX, Logbook
from tinyfat.box.outbox import Outbox
from tinyfat.domain.link import LOG_LINE_CHARS_MAX, LOG_LINES_MAX, Log, RuntimeState, Status, TurnReceived
from tinyfat.domain.link_json import decode


def book(tmp_path: Path) -> Logbook:
    return Logbook(tmp_path / "box.log", now=lambda: 1_700_000_000.25)


def test_a_line_in_the_file(tmp_path: Path) -> None:
    log = book(tmp_path)
    log.box("hello")
    log.write("runtime", "wörld \ud800")
    lines = (tmp_path / "box.log").read_text().splitlines()
    assert lines == ["2023-11-14T22:13:20.250Z box     hello", "2023-11-14T22:13:20.250Z runtime wörld ?"]


def test_secrets_are_hidden_the_longer_first(tmp_path: Path) -> None:
    log = book(tmp_path)
    log.hide(["secret-1", "secret-1-and-more", "abc"])
    log.box("secret-1-and-more, secret-1, abc")
    assert "***, ***, abc" in (tmp_path / "box.log").read_text()
    assert log.batch()[0].text == "***, ***, abc"


def test_a_secret_is_hidden_before_a_long_line_is_cut(tmp_path: Path) -> None:
    log = book(tmp_path)
    log.hide(["0123456789"])
    log.box("x" * (LOG_LINE_CHARS_MAX - 5) + "0123456789" + "y" * 100)
    assert "01234" not in log.batch()[0].text
    assert len(log.batch()[0].text) == LOG_LINE_CHARS_MAX


def test_the_file_is_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfat.box.logbook.FILE_BYTES_MAX", 1000)
    log = book(tmp_path)
    for number in range(100):
        log.box(f"line {number}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["box.log", "box.log.1"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert (tmp_path / "box.log").read_text().endswith("line 99\n")
    again = book(tmp_path)  # a new box goes on in the same file
    again.box("after")
    assert (tmp_path / "box.log").read_text().endswith("line 99\n2023-11-14T22:13:20.250Z box     after\n")


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    log = Logbook(tmp_path / "gone" / "box.log")
    log.box("hello")
    assert log.batch()[0].text == "hello"


def test_lost_lines_are_said(tmp_path: Path) -> None:
    log = book(tmp_path)
    for number in range(RING_LINES_MAX + 7):
        log.box(f"line {number}")
    batch = log.batch()
    assert len(batch) == LOG_LINES_MAX
    assert batch[0].text.startswith("7 lines before this one were not kept")
    assert batch[1].text == "line 7"
    log.sent(batch, log.lost)
    assert log.batch()[0].text == f"line {7 + LOG_LINES_MAX - 1}"


def test_lines_lost_while_a_batch_is_on_its_way_are_said_later(tmp_path: Path) -> None:
    log = book(tmp_path)
    for number in range(RING_LINES_MAX):
        log.box(f"line {number}")
    batch, lost = log.batch(), log.lost
    for number in range(300):
        log.box(f"more {number}")
    log.sent(batch, lost)
    assert log.lost == 300
    after = log.batch()
    assert after[0].text.startswith("300 lines")
    assert after[1].text == "line 300"


def test_the_outbox_says_the_urgent_first_and_log_lines_again_if_the_socket_did_not_take_them(tmp_path: Path) -> None:
    log = book(tmp_path)
    journal = Journal(tmp_path / "j")
    outbox = Outbox(journal, log)
    log.box("a line")
    outbox.status(Status(RuntimeState.READY))
    outbox.receipt("t1")
    assert outbox.something.is_set()
    taken = outbox.frames()
    assert decode(next(taken)) == TurnReceived("t1")
    assert decode(next(taken)) == Status(RuntimeState.READY)
    assert isinstance(decode(next(taken)), Log)
    taken.close()  # the socket broke here
    assert [type(decode(frame)) for frame in outbox.frames()] == [Log]
    assert list(outbox.frames()) == []
    assert not outbox.something.is_set()
