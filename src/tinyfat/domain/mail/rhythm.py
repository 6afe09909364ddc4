"""The rhythm of a loop: mail that comes back within seconds of our own replies, several times in a row. Pure.

An automatic responder that marks nothing (RFC 3834 5 asks it to) is told from a person by its pace alone. Each mail is
paired with one reply of ours that had left before it; a pair is quick where the mail came soon after. People do answer
at once, and twice; they do not do so time after time. A thread of its own for each answer changes nothing: the pairs
are those of a sender with an agent, and of a conversation.

One that looks for its mail every five minutes, or every hour, has no pace that tells it from a person. It is known by
its words: answers to our replies that say the same, time after time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

QUICK_ANSWERS_MAX = 5  # quick ones in a row that are answered; the next is held
# Within so many seconds of a reply; and how many of these in a row, as a multiple of the number above. The slower the
# answers, the more of them it takes: a person may well answer within a minute.
PACES = ((10.0, 1.0), (30.0, 1.5), (90.0, 2.0))
SAME_WORDS_MULTIPLE = 2  # of the number above: how many answers of the same words in a row are answered
WORDS_CHARS = 300  # of a mail's own words, which are compared
WORDS_CHARS_MIN = 40  # "Go on, please." may well be written ten times
LOOKED_BACK_SECONDS = 24 * 3600.0
HOLD_SECONDS = 24 * 3600.0  # a conversation with a held loop stays held so long, unless it is released
REST_SECONDS = 90.0  # so long any mail of its sender is held: a responder may answer our notice about it, too
LOOP = "a loop:"  # each reason begins so


@dataclass(frozen=True, slots=True)
class Exchange:
    """A mail that had a turn, in seconds before now."""

    arrived: float
    replied: float | None = None  # when its reply left; None: it has not
    released: float | None = None  # when a person let it through; None: nobody had to
    same_words: bool = False  # as the mail that comes now


@dataclass(frozen=True, slots=True)
class Rhythm:
    """What the ledger knows of a sender and a conversation, of LOOKED_BACK_SECONDS."""

    exchanges: Sequence[Exchange] = ()
    held_in_thread: float | None = None  # seconds since its last mail that was held as a loop; None: there is none
    held_of_sender: float | None = None


def loop_reason(rhythm: Rhythm, answers_max: int) -> str:
    """Why a mail that comes now is held as part of a loop; "" where it is not. `answers_max` 0: never."""
    if answers_max <= 0:
        return ""
    released = min((one.released for one in rhythm.exchanges if one.released is not None), default=None)
    if _stands(rhythm.held_in_thread, HOLD_SECONDS, released):
        return f"{LOOP} this conversation was held as one"
    if _stands(rhythm.held_of_sender, REST_SECONDS, released):
        return f"{LOOP} another mail of this sender was just held as one"
    arrivals, replies = _since(rhythm.exchanges, released)
    for seconds, multiple in PACES:
        quick = _quick_in_a_row(arrivals, replies, seconds)
        if quick > answers_max * multiple:
            return f"{LOOP} {quick} mails in a row came within {seconds:.0f} s of our replies"
    same = _same_in_a_row(rhythm.exchanges, released)
    if same > answers_max * SAME_WORDS_MULTIPLE:
        return f"{LOOP} {same} answers in a row said the same"
    return ""


def own_words(question: str, is_answer: bool) -> str:
    """What is compared of a mail, by its turn's text: the beginning up to the first quote, without numbers and blanks;
    "" where it is no answer to anything (a person's program may ask the same each hour) or too short to tell.

    The ledger cuts the turns it has in the same way (store/accepting).
    """
    said = question.partition("\n\n")[2][:WORDS_CHARS].partition("\n>")[0]
    folded = re.sub(r"[0-9 \t\n]+", "", said)
    return folded if is_answer and len(folded) >= WORDS_CHARS_MIN else ""


def _same_in_a_row(exchanges: Sequence[Exchange], released: float | None) -> int:
    """The one that comes now included."""
    count = 1
    for one in sorted(exchanges, key=lambda exchange: exchange.arrived):
        if not one.same_words or (released is not None and one.arrived >= released):
            break
        count += 1
    return count


def _stands(held: float | None, seconds: float, released: float | None) -> bool:
    """A release ends every hold before it."""
    return held is not None and held <= seconds and (released is None or held < released)


def _since(exchanges: Sequence[Exchange], released: float | None) -> tuple[list[float], list[float]]:
    """Arrivals since the last release, the one that comes now included, and replies; each oldest first."""
    arrivals = [one.arrived for one in exchanges if released is None or one.arrived < released]
    replies = [one.replied for one in exchanges if one.replied is not None]
    return (
        [*sorted(arrivals, reverse=True), 0.0],
        sorted((one for one in replies if released is None or one < released), reverse=True),
    )


def _quick_in_a_row(arrivals: Sequence[float], replies: Sequence[float], seconds: float) -> int:
    """How many of the last mails came, each, within so many seconds of a reply that no other mail is paired with."""
    waiting: deque[float] = deque()
    following = 0
    count = 0
    for arrived in arrivals:
        while following < len(replies) and replies[following] >= arrived:
            waiting.append(replies[following])
            following += 1
        while waiting and waiting[0] - arrived > seconds:
            waiting.popleft()
        count = count + 1 if waiting else 0
        if waiting:
            waiting.popleft()  # the oldest that is recent enough, so that threads side by side each find their own
    return count
