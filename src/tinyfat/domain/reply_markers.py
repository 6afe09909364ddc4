"""Markers by which a runtime's model says that nothing is to be sent: they are never part of a reply. Pure.

OpenClaw 2026.9.6 knows NO_REPLY and HEARTBEAT_OK (src/auto-reply/tokens.ts), ANNOUNCE_SKIP and REPLY_SKIP
(src/gateway/control-reply-text.ts), and directives such as [[reply_to_current]]. It takes some of them off itself, in
chats; models write them in more places and shapes than it looks. A marker that is plainly content stays: inside a
sentence, in a code block beside other text, in a quotation, or right after a colon.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.turns import TurnOutcome, TurnResult

READ_CHARS_MAX = 1_000_000  # as much as an answer has (domain/link)
ROUNDS_MAX = 10  # markers taken off one end of a text, one by one

_MARKER = r"(?:NO\\?_REPLY|HEARTBEAT\\?_OK|ANNOUNCE\\?_SKIP|REPLY\\?_SKIP)"
_MARKS = r"[\W_]*"  # what markers are dressed in: signs, smiles
_ONLY = re.compile(rf"{_MARKS}(?:{_MARKER}{_MARKS})+", re.IGNORECASE)
_DIRECTIVE = re.compile(r"[ \t]*\[\[ ?(?:reply_to_current|reply_to: ?[^\]\n]{1,200}|audio_as_voice) ?\]\][ \t]*")
_REASONING = re.compile(r"\s*<(think(?:ing)?|thought|antthinking)\b[^<>]*>.*?</\1\s*>\s*", re.IGNORECASE | re.DOTALL)
_SPECIAL = re.compile(r"</?s>|<\|[a-z_]{1,30}\|>")  # a model's own tokens, which some servers let out
_LABEL = re.compile(r"(?:final\s+)?(?:answer|reply|response|assistant|antwort)\s*:", re.IGNORECASE)
_ENVELOPES = ("action", "answer", "content", "message", "reply", "response", "text")
_NOTHING = re.compile(r"(?:[\W_]|\d{1,3}[.)])*")  # what is left of a list's number, a rule, a smile
_UNSEEN = dict.fromkeys(map(ord, "\u200b\u200e\u200f\u2060\ufeff\u00ad"))
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")

# At the end of the last line: after white space or another marker, dressed or not.
_TAIL = re.compile(rf"(?:^|(?<=[\s*.!?…)]))[*_`~(\[]*(?<![\w-]){_MARKER}[*_`~)\]]*[.!]?\s*$", re.IGNORECASE)
# At the beginning of the first line: glued to a word, or before what begins anew. "NO_REPLY means ..." is a sentence.
_HEAD = re.compile(
    rf"^\s*[*_`~(\[]*{_MARKER}(?:[*_`~)\]]*+(?!\w)[ \t]*+(?:[:–—]|[.,;-]?+[ \t]*+(?![a-zß-ÿ]))|(?=[^\W_]))"
)
# A word before the marker that makes it the sentence's object: it is spoken about.
_ABOUT = re.compile(
    r"(?:\b(?:is|are|was|be|called|named|marker|token|word|string|text|value|with|by|as|of|or|and|to|the|a|an|like|say"
    r"|says|said|write|print|use|uses|send|sends|return|returns|answer|reply|output|means|not|only|just|exactly|heißt"
    r"|ist|mit|und|oder|est|es)|[=:\"'“„«(])[ \t*_`~\"'“„«(]*$",
    re.IGNORECASE,
)


def without_markers(text: str) -> tuple[str, bool]:
    """The text without markers, and whether one was taken out. An answer that was only markers becomes ""."""
    plain = text.translate(_UNSEEN)
    if not _may_hold_one(plain):
        return text, False
    if _is_only_markers(plain):
        return "", True
    kept, found = _outside_code(plain)
    kept, at_head = _off_the_head(kept)
    kept, at_tail = _off_the_tail(kept)
    if not (found or at_head or at_tail):
        return text, False
    if re.search(_MARKER, plain, re.IGNORECASE) and _NOTHING.fullmatch(_SPECIAL.sub("", kept)):
        return "", True  # what is left says nothing
    return re.sub(r"\n{3,}", "\n\n", kept).strip(), True


def unmarked(result: TurnResult) -> TurnResult:
    """The result without markers; silent where they were all of an answer."""
    text, found = without_markers(result.text)
    if not found or result.outcome is not TurnOutcome.ANSWERED:
        return result
    if text or result.attachments:
        return replace(result, text=text)
    return replace(result, outcome=TurnOutcome.SILENT, text="", failure=Failure(FailureId.SILENT))


def _may_hold_one(text: str) -> bool:
    upper = text[:READ_CHARS_MAX].upper()
    return any(end in upper for end in ("_REPLY", "_OK", "_SKIP", "[[REPLY_TO", "[[ REPLY_TO", "[[AUDIO", "[[ AUDIO"))


def _is_only_markers(text: str) -> bool:
    bare = _SPECIAL.sub("", _DIRECTIVE.sub(" ", _REASONING.sub("", text, count=1))).strip()
    bare = _LABEL.sub("", bare, count=1).strip() if _LABEL.match(bare) else bare
    if not bare or len(bare) > 1000:  # of directives alone, or too long to be of markers alone
        return not bare
    unfenced = "\n".join(line for line in bare.split("\n") if not _FENCE.match(line)).strip()
    return bool(_ONLY.fullmatch(unfenced)) or _is_envelope(bare)


def _is_envelope(text: str) -> bool:
    """{"action": "NO_REPLY"}"""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict) or len(value) != 1:
        return False
    [(name, said)] = value.items()
    return name in _ENVELOPES and isinstance(said, str) and bool(_ONLY.fullmatch(said))


def _outside_code(text: str) -> tuple[str, bool]:
    """Lines that are only markers, and directives, go; lines of code blocks and quotations stay as they are."""
    kept: list[str] = []
    found, fence, before = False, "", ""
    for line in text.split("\n"):
        opening = _FENCE.match(line)
        if fence:
            if opening and opening[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
        elif opening:
            fence = opening[1]
        elif not line.startswith((">", "    ", "\t")):
            plain = _DIRECTIVE.sub("", line) if "[[" in line else line
            if (plain != line and not plain.strip()) or (_is_marker_line(plain) and not before.endswith((":", "："))):
                found = True
                continue
            found = found or plain != line
            line = plain
        kept.append(line)
        before = line.rstrip(" *_`") or before
    return "\n".join(kept), found


def _is_marker_line(line: str) -> bool:
    return len(line) <= 200 and not line.lstrip().startswith("- ") and bool(_ONLY.fullmatch(line))


def _off_the_head(text: str) -> tuple[str, bool]:
    found = False
    for _ in range(ROUNDS_MAX):
        match = _HEAD.match(text)
        if match is None:
            break
        text, found = text[match.end() :].lstrip(), True
    return text, found


def _off_the_tail(text: str) -> tuple[str, bool]:
    found = False
    for _ in range(ROUNDS_MAX):
        text = text.rstrip()
        start = text.rfind("\n") + 1
        line = text[max(start, len(text) - 300) :]
        match = _TAIL.search(line)
        before = line[: match.start()] if match else ""
        # A line that is only a marker was judged by the line before it.
        if match is None or not before.strip(" \t*-") or line.startswith(">") or _ABOUT.search(before):
            break
        if _in_code(text, line):
            break
        text, found = text[: len(text) - len(line) + match.start()], True
    return text.rstrip(), found


def _in_code(text: str, last: str) -> bool:
    fences = sum(1 for line in text.split("\n") if _FENCE.match(line))
    return fences % 2 == 1 or last.startswith(("    ", "\t")) or bool(_FENCE.match(last))
