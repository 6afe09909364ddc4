"""What the stand-in answers. Pure, deterministic, and honest: it is no model and knows this conversation alone.

It greets the sender, notes what it is told, answers a question with the statement of the same conversation that shares
most words with it, does a small sum, and writes a small file where one is asked for (model_tasks). A line of the last
mail may direct it, for tests:

    model: say TEXT                          the whole answer; \\n in it begins a new line
    model: write out/report.txt TEXT then attach
                                             a call to the tool `write`, then an answer that attaches the file
    model: call NAME {"argument": ...}       a call to that tool, then what it gave back
    model: status 500 | status 429           an error, with retry-after where it is 429
    model: slow 2                            that many seconds before the answer
    model: hang                              no answer
    model: cut                               a stream that ends in the middle
    model: no usage                          an answer that counts no tokens
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from tinyfat.standins.model_reading import Correspondence, Mail, texts_in_order
from tinyfat.standins.model_tasks import CONTENT_CHARS_MAX, THANKS, after_greeting, file_wanted, sum_in

SLOW_SECONDS_MAX = 600.0
FILES = "out"  # the folder of the workspace for what is attached
NAME_WORDS_MAX = 3  # of the name beneath a mail's closing words
SENTENCES_MAX = 5000  # of a conversation that are searched
NOTED_CHARS_MAX = 600
STANDIN_WORDS = (
    "I am TinyFat's stand-in for a model: no key for a real one is set, so I know only what this conversation says"
)

_DIRECTIVE = re.compile(r"^model:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_WRITE = re.compile(r"write[ \t]+(\S+)[ \t]+(.*?)(?:[ \t]+then[ \t]+(attach))?")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?=\S)[^.!?\n]*)*[.!?]*")
_WORD = re.compile(r"[^\W_]+")
_ASKING = re.compile(
    r"(?:what|who|whom|whose|when|where|which|why|how|do you|can you|could you|did i|is|are|was|were|"
    r"was|wer|wen|wem|wessen|wann|wo|welche[rsnm]?|warum|wie)\b",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"(?:(?:best|kind|many|warm|with|viele|liebe|beste|mit freundlichen) )*"
    r"(?:regards|wishes|greetings|thanks|thank you|cheers|sincerely|yours|yours (?:sincerely|truly)|"
    r"gruß|gruss|grüße|grüßen|danke|mfg|lg|vg)\b\W*(?:\w+\W*){0,3}",
    re.IGNORECASE,
)
_AFTER_CLOSING_LINES_MAX = 3
_QUOTE_HEAD = re.compile(r"^.{0,200}(?:wrote|schrieb[^\n]{0,100}|writes):\s*$")
_COMMON_WORDS = """
a about all am an and any are as at be been but by can could did do does for from had has have he her here him
his how i if in is it its me mine my of on or our please she so tell than that the their them then there these
they this those to told us was we were what when where which who whom whose why will with would you your
der die das den dem ein eine einen einer und oder ist sind war wie was wer wo mein meine meinen dein deine ich
du er sie es wir ihr in im am an auf von zu mit
"""
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True)
class Say:
    text: str
    wait_seconds: float = 0.0
    cut: bool = False
    usage: bool = True


@dataclass(frozen=True, slots=True)
class CallTool:
    name: str
    arguments: dict[str, Any]
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Fail:
    status: int
    retry_after_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    pass


Reply: TypeAlias = Say | CallTool | Fail | Hang


def reply(correspondence: Correspondence) -> Reply:
    if not correspondence.mails:
        return Say(f"{STANDIN_WORDS}, and it says nothing yet.")
    last = correspondence.mails[-1]
    body = own_words(last.body)
    directives = [match.group(1) for match in _DIRECTIVE.finditer(body)]
    mail = Mail(last.sender, _DIRECTIVE.sub("", body), last.files, last.attachments)
    wait_seconds = 0.0
    cut, usage = False, True
    for directive in directives:
        verb, _, rest = directive.partition(" ")
        match verb.lower():
            case "status" if rest.isdigit() and 400 <= int(rest) <= 599:
                return Fail(int(rest), 1 if rest == "429" else None)
            case "hang":
                return Hang()
            case "slow":
                wait_seconds = _seconds(rest)
            case "cut":
                cut = True
            case "no" if rest == "usage":
                usage = False
            case "say":
                return Say(rest.replace("\\n", "\n"), wait_seconds, cut, usage)
            case "write":
                return _write(directive, correspondence, wait_seconds)
            case "call":
                return _call(rest, correspondence, wait_seconds)
    earlier, wanted = correspondence.mails[:-1], file_wanted(mail.body)
    if wanted is not None and "write" in correspondence.tools and not correspondence.tool_results:
        content = wanted.content or _all_known(earlier, mail)
        return CallTool("write", {"path": f"{FILES}/{wanted.name}", "content": content + "\n"}, wait_seconds)
    text = answer(earlier, mail, last.body)
    if wanted is not None and correspondence.tool_results:
        text += f"\n\nHere is {wanted.name}.\nMEDIA:./{FILES}/{wanted.name}"
    elif wanted is not None:
        text += "\n\nI was offered no tool `write`, so I wrote no file."
    return Say(text, wait_seconds, cut, usage)


def answer(earlier: tuple[Mail, ...], mail: Mail, whole: str = "") -> str:
    """A greeting, what was noted, what was asked. `whole`: the mail with its closing words and quotes."""
    statements, questions, files = _sort(sentences(mail.body), mail.sender)
    known = _statements(earlier) + statements + [line for _, text in mail.files for line in _sort(sentences(text))[0]]
    parts = [f"Hello {first_name(mail.sender)}," if mail.sender else "Hello,"]
    if statements:
        parts.append(f"Noted: {' '.join(statements)[:NOTED_CHARS_MAX]}")
    names = [name for name, _ in mail.files]
    if names or mail.attachments:
        parts.append(f"I have your attachments: {mail.attachments or ', '.join(names)}.")
    parts += [sum_in(question) or _answered(question, known) for question in questions]
    if len(parts) == 1 and not files:
        parts.append(_nothing_asked(mail.body or whole))
    return "\n\n".join(parts)


def _nothing_asked(body: str) -> str:
    first_line = body.lstrip().split("\n", 1)[0]
    if THANKS.match(first_line):
        return "you are welcome."
    if _WORD.search(first_line) and not first_line.startswith(">") and not _QUOTE_HEAD.match(first_line):
        return "it is good to hear from you. Tell me something to remember, or ask me what you told me."
    return f"your mail has no text. {STANDIN_WORDS}."


def _statements(mails: tuple[Mail, ...]) -> list[str]:
    texts = ((one.sender, text) for one in mails for text in texts_in_order((one,)))
    return [line for sender, text in texts for line in _sort(sentences(own_words(text)), sender)[0]]


def _all_known(earlier: tuple[Mail, ...], mail: Mail) -> str:
    """What was said about what is asked for; where nothing was, all that was said."""
    told = _statements(earlier) + _sort(sentences(mail.body), mail.sender)[0]
    asked = words(mail.body)
    lines = [line for line in told if asked & words(line)] or told
    return "\n".join(f"- {line}" for line in lines)[:CONTENT_CHARS_MAX] or "- nothing yet"


def own_words(body: str) -> str:
    """A mail's text without what it quotes, its closing words and its signature."""
    kept: list[str] = []
    for line in body.replace("\r\n", "\n").split("\n"):
        if line.rstrip() == "--":
            break
        if line.lstrip().startswith(">"):
            while kept and not kept[-1].strip():
                kept.pop()
            if kept and _QUOTE_HEAD.match(kept[-1]):
                kept.pop()
            continue
        kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    for index in range(max(len(kept) - _AFTER_CLOSING_LINES_MAX, 0), len(kept)):
        if _CLOSING.fullmatch(kept[index].strip()):
            kept = kept[:index]
            break
    return "\n".join(kept).strip()


def sentences(text: str) -> list[str]:
    """In order; a full stop inside a word, as in example.org, ends none."""
    found = (match.group().strip() for match in _SENTENCE.finditer(text))
    return [sentence for sentence in found if _WORD.search(sentence)][-SENTENCES_MAX:]


def first_name(sender: str) -> str:
    """From `Eva Meier <eva@example.org>`: Eva."""
    name, _, address = sender.partition("<")
    words = name.strip(" \"'").split()
    if words and "@" not in words[0]:
        return words[0].rstrip(",")
    local = (address or sender).strip("<> ").split("@")[0]
    return local.split(".")[0].capitalize() or "you"


def words(text: str) -> frozenset[str]:
    """Those that carry meaning, roughly stemmed."""
    return frozenset(_stem(word) for word in _WORD.findall(text.casefold()) if word not in _COMMON)


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _sort(lines: list[str], sender: str = "") -> tuple[list[str], list[str], list[str]]:
    """Statements, questions, and wishes for a file; without what only greets or closes, and the sender's own name."""
    named = frozenset(_WORD.findall(sender.casefold()))
    statements: list[str] = []
    questions: list[str] = []
    files: list[str] = []
    for number, line in enumerate(map(after_greeting, lines)):
        if _CLOSING.fullmatch(line) and all(len(_WORD.findall(name)) <= NAME_WORDS_MAX for name in lines[number + 1 :]):
            break
        if file_wanted(line):
            files.append(line)
        elif line.endswith("?") or sum_in(line) or (_ASKING.match(line) and not line.endswith((".", "!"))):
            questions.append(line)
        elif not named.issuperset(_WORD.findall(line.casefold())):
            statements.append(line)
    return statements, questions, files


def _answered(question: str, known: list[str]) -> str:
    asked = words(question)
    best, shared_most = "", 0
    for statement in known:
        shared = len(asked & words(statement))
        if shared and shared >= shared_most:  # the later one, where two fit alike
            best, shared_most = statement, shared
    if best:
        return f"You told me: '{best}'"
    return f"You ask: '{question}' {STANDIN_WORDS}, and it does not say that."


def _write(directive: str, correspondence: Correspondence, wait_seconds: float) -> Reply:
    match = _WRITE.fullmatch(directive)
    if match is None:
        return Say("model: write takes a path and a text")
    path, text, attach = match.groups()
    if "write" not in correspondence.tools:
        return Say("I was offered no tool `write`, so I wrote no file.")
    if not correspondence.tool_results:
        return CallTool("write", {"path": path, "content": text}, wait_seconds)
    done = f"I wrote {path}."
    return Say(f"{done}\nMEDIA:./{path.removeprefix('./')}" if attach else done)


def _call(rest: str, correspondence: Correspondence, wait_seconds: float) -> Reply:
    name, _, written = rest.partition(" ")
    if correspondence.tool_results:
        return Say(f"{name} gave: {correspondence.tool_results[-1][:NOTED_CHARS_MAX]}")
    if name not in correspondence.tools:
        return Say(f"I was offered no tool `{name}`, only: {', '.join(sorted(correspondence.tools))}.")
    try:
        arguments = json.loads(written or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return Say("model: call takes a tool's name and a JSON object")
    return CallTool(name, arguments, wait_seconds)


def _seconds(text: str) -> float:
    try:
        return min(max(float(text), 0.0), SLOW_SECONDS_MAX)
    except ValueError:
        return 0.0
