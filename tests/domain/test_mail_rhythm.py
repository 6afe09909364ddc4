"""Loops are told from people by their pace alone, on a simulated clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.domain.mail.rhythm import (
    HOLD_SECONDS,
    LOOP,
    PACES,
    QUICK_ANSWERS_MAX,
    REST_SECONDS,
    Exchange,
    Rhythm,
    loop_reason,
    own_words,
)

WINDOW_SECONDS = 3600.0
MOST = QUICK_ANSWERS_MAX * PACES[-1][1] + 1  # answers that the slowest loop gets: its quick ones, and the first


class Agent:
    """Answers each mail after `answer_seconds`; judges as the ledger does, by what it remembers."""

    def __init__(self, answer_seconds: float) -> None:
        self.answer_seconds = answer_seconds
        self.arrived: list[float] = []
        self.held_at: float | None = None

    def takes(self, now: float) -> bool:
        past = [at for at in self.arrived if now - at <= WINDOW_SECONDS]
        exchanges = [
            Exchange(now - at, now - left if (left := at + self.answer_seconds) <= now else None) for at in past
        ]
        held = None if self.held_at is None else now - self.held_at
        if loop_reason(Rhythm(exchanges, None, held), QUICK_ANSWERS_MAX):
            self.held_at = now
            return False
        self.arrived.append(now)
        return True


def run(agent: Agent, first: list[float], answers_after: Callable[[], float], until: float) -> int:
    """Mails at `first`; each reply is answered with a new mail. Returns how many were held."""
    coming, held = [*first], 0
    heapq.heapify(coming)
    while coming and (now := heapq.heappop(coming)) < until:
        if agent.takes(now):
            heapq.heappush(coming, now + agent.answer_seconds + answers_after())
        else:
            held += 1
    return held


@given(st.floats(0.01, 60.0), st.floats(0.0, 0.4), st.floats(0.01, 120.0), st.integers(0, 2**32), st.integers(1, 4))
def test_a_loop_ends_whatever_its_delay_and_however_many_threads_it_has(
    delay: float, jitter: float, answer_seconds: float, seed: int, threads: int
) -> None:
    dice = random.Random(seed)
    agent = Agent(answer_seconds)
    starts = [dice.uniform(0, 60) for _ in range(threads)]
    held = run(agent, starts, lambda: delay * dice.uniform(1 - jitter, 1 + jitter), WINDOW_SECONDS)
    if (MOST + 2) * (delay * 1.4 + answer_seconds) < WINDOW_SECONDS:  # it has time enough
        assert held, "it was never stopped"
    assert len(agent.arrived) <= MOST * threads


@pytest.mark.parametrize("delay", [0.0, 0.3, 1.0, 5.0, 9.9])
def test_a_fast_loop_is_stopped_after_a_few(delay: float) -> None:
    agent = Agent(0.05)
    assert run(agent, [0.0], lambda: delay, WINDOW_SECONDS) == 1
    assert len(agent.arrived) == QUICK_ANSWERS_MAX + 1


def test_several_senders_are_judged_each_by_itself() -> None:
    """One agent's person is not held for another's loop."""
    looping, person = Agent(1.0), Agent(1.0)
    assert run(looping, [0.0], lambda: 0.5, 600.0) == 1
    assert run(person, [0.0], lambda: 120.0, 3600.0) == 0


@given(st.integers(0, 2**32))
def test_a_person_who_answers_fast_now_and_then_is_not_held(seed: int) -> None:
    """Twice, three times in a row within seconds, then a while of thought; for hours."""
    dice = random.Random(seed)
    agent = Agent(dice.uniform(1.0, 60.0))
    fast = 0

    def pause() -> float:
        nonlocal fast
        if fast < 3 and dice.random() < 0.7:
            fast += 1
            return dice.uniform(2.0, 10.0)
        fast = 0
        return dice.uniform(91.0, 900.0)

    assert run(agent, [0.0], pause, 4 * 3600.0) == 0


@given(st.integers(0, 2**32))
def test_a_person_who_chats_is_not_held(seed: int) -> None:
    """Between half a minute and a few minutes for each answer."""
    dice = random.Random(seed)
    assert run(Agent(10.0), [0.0], lambda: dice.choice([35.0, 45.0, 80.0, 100.0, 150.0, 200.0]), 0.0) == 0
    calm = Agent(10.0)
    turns = iter([*[40.0] * (2 * QUICK_ANSWERS_MAX - 1), 200.0] * 20)
    assert run(calm, [0.0], lambda: next(turns), 3600.0) == 0


def test_mails_that_a_person_sends_in_one_go_are_no_loop() -> None:
    agent = Agent(5.0)
    assert all(agent.takes(number * 0.3) for number in range(16)), "no reply had left yet"
    assert agent.takes(60.0)


@pytest.mark.parametrize("answer_seconds", [0.1, 2.0, 5.0, 11.0, 40.0])
@pytest.mark.parametrize("pause", [2.0, 8.0, 12.0, 15.0])
def test_five_mails_in_a_minute_are_no_loop(pause: float, answer_seconds: float) -> None:
    """Each perhaps right behind the reply to the one before it."""
    agent = Agent(answer_seconds)
    assert all(agent.takes(number * pause) for number in range(5))


@pytest.mark.parametrize("delay", [1.0, 3.0, 5.0, 30.0, 80.0])
@pytest.mark.parametrize("senders", [1, 2, 3])
def test_robots_that_take_turns_are_stopped_too(delay: float, senders: int) -> None:
    """Each sees its own mails alone; all of them write in turn, each the answer to the other's reply."""
    agents = [Agent(0.5) for _ in range(senders)]
    now, number, stopped = 0.0, 0, 0
    while now < WINDOW_SECONDS and stopped < senders:
        stopped = 0 if agents[number % senders].takes(now) else stopped + 1
        number, now = number + 1, now + delay + 0.5
    if senders * (delay + 0.5) < PACES[-1][0]:  # else each is slower than any pace that is looked for
        assert stopped == senders
        assert number <= senders * (MOST + 2)


def test_a_mail_right_after_the_hold_is_held_and_a_later_one_is_not() -> None:
    agent = Agent(0.1)
    run(agent, [0.0], lambda: 0.5, 600.0)
    assert agent.held_at is not None
    at = agent.held_at
    assert not agent.takes(at + 5.0), "the responder's answer to our notice"
    assert agent.takes(at + 5.0 + REST_SECONDS + 1.0), "its person, a while later"


def test_a_held_conversation_stays_so_until_it_is_released_or_a_day_has_passed() -> None:
    assert "this conversation" in loop_reason(Rhythm((), HOLD_SECONDS), 5)
    assert loop_reason(Rhythm((), HOLD_SECONDS + 1), 5) == ""
    released = Exchange(arrived=500.0, replied=290.0, released=300.0)
    assert loop_reason(Rhythm([released], 400.0, 20_000.0), 5) == "", "released after it was held"
    assert loop_reason(Rhythm([released], 200.0), 5) != "", "held after it was released"


def test_after_a_release_the_row_begins_anew() -> None:
    before = [Exchange(1000.0 - n, 999.9 - n) for n in range(20)]
    released = Exchange(arrived=900.0, replied=5.5, released=30.0)
    assert loop_reason(Rhythm([*before, released]), 5) == ""
    after = [Exchange(5.0 - n, 4.9 - n) for n in range(4)]
    assert loop_reason(Rhythm([*before, released, *after]), 5) == ""
    more = [Exchange(5.0 - n, 4.9 - n) for n in range(5)]
    assert loop_reason(Rhythm([*before, released, *more]), 5).startswith(LOOP)


def test_answers_of_the_same_words_are_a_loop_at_any_pace() -> None:
    hourly = [Exchange(3600.0 * n, 3590.0 * n, None, True) for n in range(1, 2 * QUICK_ANSWERS_MAX + 1)]
    assert "said the same" in loop_reason(Rhythm(hourly), QUICK_ANSWERS_MAX)
    assert loop_reason(Rhythm(hourly[:-1]), QUICK_ANSWERS_MAX) == ""
    assert loop_reason(Rhythm([Exchange(60.0, 30.0), *hourly]), QUICK_ANSWERS_MAX) == "", "another one came between"
    released = Exchange(3600.0 * 4, 3590.0 * 4, 3600.0 * 3.5, True)
    assert loop_reason(Rhythm([*hourly[:3], released, *hourly[4:]]), QUICK_ANSWERS_MAX) == ""


def test_own_words_are_those_before_the_quote_without_numbers() -> None:
    words = "Thank you for your mail, I am away until the end of the month."
    first = own_words(f"From: a\n\n{words} Ticket 12\nOn 2 May Ada wrote:\n> x", True)
    assert first == own_words(f"From: b\nDate: c\n\n{words}  Ticket 7\nOn 13 May Ada wrote:\n> y", True)
    assert own_words(f"From: a\n\n{words}", False) == "" == own_words("From: a\n\nGo on, please.", True)
    assert own_words("From: a", True) == ""


def test_zero_is_never() -> None:
    assert loop_reason(Rhythm([Exchange(1.0 + n, 0.9 + n) for n in range(100)], 1.0, 1.0), 0) == ""


@given(
    st.lists(st.tuples(st.floats(0, 4000), st.none() | st.floats(0, 4000), st.none() | st.floats(0, 4000)), max_size=40)
)
def test_no_ledger_is_too_odd(rows: list[tuple[float, float | None, float | None]]) -> None:
    loop_reason(Rhythm([Exchange(*row) for row in rows]), QUICK_ANSWERS_MAX)
