"""What the echo runtime answers: pure, from the question and the conversation so far.

A line of the question may tell it what to do, so that tests and benches can drive a whole chain by mail alone:

    echo: say TEXT            answer just TEXT
    echo: sleep SECONDS       answer after so long
    echo: attach NAME BYTES   write a file of that size into the workspace and attach it
    echo: model COUNT         ask the model so often, and answer what it said last
    echo: fail                fail, as a runtime does whose model refuses
    echo: hang                never answer
    echo: crash               die in mid-turn, the first time
    echo: crash always        die in mid-turn, every time

Lines of the header part (From, To, Subject ..., up to the first empty line) and quoted lines do not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

# Agreed between the process and whoever starts it.
TOKEN_VARIABLE = "ECHO_GATEWAY_TOKEN"  # noqa: S105 (the name of an environment variable)
DRAIN_SECONDS_MAX = 5.0  # after SIGTERM, for the turns that run

# Where the model is, for `echo: model`: JSON of a ModelAccess' fields but the key, and the key.
MODEL_VARIABLE = "ECHO_MODEL"
MODEL_KEY_VARIABLE = "ECHO_MODEL_KEY"

SLEEP_SECONDS_MAX = 3600.0
MODEL_CALLS_MAX = 1000
ATTACH_BYTES_MAX = 30 * 1024 * 1024
FIRST_WORDS_CHARS = 120

_ORDER = re.compile(r"^echo: *(\S+) *(.*?)\s*$", re.MULTILINE)
_NAME = re.compile(r"[\w.\-]{1,100}")


@dataclass(frozen=True, slots=True)
class Script:
    say: str | None = None
    sleep_seconds: float = 0.0
    attach: tuple[tuple[str, int], ...] = ()  # names and bytes
    model_calls: int = 0
    fail: bool = False
    hang: bool = False
    crash: bool = False
    crash_always: bool = False


def read_script(question: str) -> Script:
    """What is not understood is no order: it is echoed like any other line."""
    script = Script()
    for match in _ORDER.finditer(body_of(question)):
        script = _with(script, match.group(1), match.group(2))
    return script


def body_of(question: str) -> str:
    """The question without its header part."""
    if not question.startswith("From:"):
        return question.strip()
    _, _, body = question.replace("\r\n", "\n").partition("\n\n")
    return body.strip()


def compose(question: str, earlier: list[str], files_in: list[tuple[str, int]], script: Script) -> str:
    """The answer. `earlier`: the questions before this one in its conversation, oldest first."""
    media = "".join(f"\nMEDIA:./out/{name}" for name, _ in script.attach)
    if script.say is not None:
        return script.say + media
    parts = [body_of(question)]
    if files_in:
        parts.append("Files with it: " + ", ".join(f"{name} ({size} bytes)" for name, size in files_in))
    parts.append(f"(turn {len(earlier) + 1} of this conversation)")
    if earlier:
        parts.append(f"Your first message here began: {' '.join(body_of(earlier[0]).split())[:FIRST_WORDS_CHARS]}")
    return "\n\n".join(parts) + media


def _with(script: Script, order: str, rest: str) -> Script:
    match order, rest.split():
        case "say", _:
            return replace(script, say=rest)
        case "sleep", [seconds] if re.fullmatch(r"\d+(\.\d+)?", seconds):
            return replace(script, sleep_seconds=min(float(seconds), SLEEP_SECONDS_MAX))
        case "attach", [name, size] if _NAME.fullmatch(name) and name.strip(".") and re.fullmatch(r"\d{1,10}", size):
            return replace(script, attach=(*script.attach, (name, min(int(size), ATTACH_BYTES_MAX))))
        case "model", [count] if re.fullmatch(r"\d{1,4}", count):
            return replace(script, model_calls=min(int(count), MODEL_CALLS_MAX))
        case "fail", []:
            return replace(script, fail=True)
        case "hang", []:
            return replace(script, hang=True)
        case "crash", []:
            return replace(script, crash=True)
        case "crash", ["always"]:
            return replace(script, crash_always=True)
        case _:
            return script
