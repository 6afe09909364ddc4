"""What a model is sent, read as a correspondence: mails in, answers out. Pure.

Runtimes wrap a mail before it reaches the model: OpenClaw adds a timestamp, notes on saved attachments, a `Runtime:`
line, blocks of its own context. All that is taken off again, and its long system prompt is not read at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MESSAGES_MAX = 2000
TEXT_CHARS_MAX = 1_000_000  # of one message; the rest is not read

_CONTEXT = ("<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>", "<<<END_OPENCLAW_INTERNAL_CONTEXT>>>")
_FILE = ('<file name="', "</file>")
_FILE_HEAD = re.compile(r'([^"\n]*)"[^>\n]*>')
_UNTRUSTED = re.compile(r"<<<(?:END_)?EXTERNAL_UNTRUSTED_CONTENT[^>\n]*>>>\n?|^Source: External\n---\n", re.MULTILINE)
_STAMP = re.compile(r"\A\s*\[[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d[^\]\n]*\] ?")
_NOTE = re.compile(r"^\[(?:media attached|Queued user message|Attached file saved)[^\n]*\]\n?", re.MULTILINE)
_RUNTIME = re.compile(r"\n\nRuntime: agent=[^\n]*\s*\Z")
_RESUMED = re.compile(r"(?:\A|\n\n)(?:\[System\] Your previous turn was|Continue the current task from the existing)")
_NEXT_MAIL = re.compile(r"^(?=From: [^\n]*\nTo: )", re.MULTILINE)
_HEADER = re.compile(r"(From|To|Subject|Date|Attachments):[ \t]*(.*)")


class Api(StrEnum):
    OPENAI = "openai-completions"
    ANTHROPIC = "anthropic-messages"


@dataclass(frozen=True, slots=True)
class Mail:
    sender: str  # the From line, empty where the text had no header
    body: str
    files: tuple[tuple[str, str], ...] = ()  # name, and text where the runtime read it out
    attachments: str = ""  # the Attachments line


@dataclass(frozen=True, slots=True)
class Correspondence:
    mails: tuple[Mail, ...]
    tool_results: tuple[str, ...]  # since the last mail
    tools: frozenset[str]  # names on offer


def read_request(body: Mapping[str, Any], api: Api) -> Correspondence:
    """Raises ValueError where the request has no messages."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a non-empty list")
    mails: list[Mail] = []
    tool_results: list[str] = []
    for message in messages[-MESSAGES_MAX:]:
        if not isinstance(message, dict):
            raise ValueError("a message must be an object")  # noqa: TRY004 - the request is wrong, not our call
        tool_results += _tool_results(message)
        if message.get("role") != "user":
            continue
        found = read_text(_text(message.get("content")))
        if found:
            mails += found
            tool_results = []
    return Correspondence(tuple(mails), tuple(tool_results), _tools(body, api))


def read_text(text: str) -> list[Mail]:
    """The mails in one user message: none in a runtime's own note, several where it merged them."""
    plain, _ = _cut(text[:TEXT_CHARS_MAX], *_CONTEXT)
    plain, inners = _cut(_RUNTIME.sub("", _STAMP.sub("", plain)), *_FILE)
    files = tuple(_file(inner) for inner in inners)
    plain = _NOTE.sub("", plain)
    resumed = _RESUMED.search(plain)
    if resumed is not None:
        plain = plain[: resumed.start()]
    parts = [part for part in _NEXT_MAIL.split(plain) if part.strip()]
    if not parts:
        return [Mail("", "", files)] if files else []
    mails = [_mail(part) for part in parts]
    last = mails[-1]
    return [*mails[:-1], Mail(last.sender, last.body, files, last.attachments)]


def _cut(text: str, opening: str, closing: str) -> tuple[str, list[str]]:
    """The text without what stands between the two, and what stood there. In linear time, whatever the text."""
    outside: list[str] = []
    inside: list[str] = []
    at = 0
    while (start := text.find(opening, at)) >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        outside.append(text[at:start])
        inside.append(text[start + len(opening) : end])
        at = end + len(closing)
    return "".join([*outside, text[at:]]), inside


def _file(inner: str) -> tuple[str, str]:
    head = _FILE_HEAD.match(inner)
    name, text = (head.group(1), inner[head.end() :]) if head else ("", inner)
    return name, _UNTRUSTED.sub("", text).strip()


def _mail(text: str) -> Mail:
    headers: dict[str, str] = {}
    lines = text.strip("\n").split("\n")
    for number, line in enumerate(lines):
        match = _HEADER.fullmatch(line)
        if match is None:
            if not line.strip() and headers:
                return Mail(headers.get("From", ""), "\n".join(lines[number + 1 :]), (), headers.get("Attachments", ""))
            break
        headers[match.group(1)] = match.group(2)
    if headers and len(headers) == len(lines):
        return Mail(headers.get("From", ""), "", (), headers.get("Attachments", ""))
    return Mail("", text.strip())


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "\n".join(str(part.get("text", "")) for part in parts)


def _tool_results(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content")
    if message.get("role") == "tool":
        return [_text(content)]
    if message.get("role") != "user" or not isinstance(content, list):
        return []
    results = [part for part in content if isinstance(part, dict) and part.get("type") == "tool_result"]
    return [_text(part.get("content")) for part in results]


def _tools(body: Mapping[str, Any], api: Api) -> frozenset[str]:
    tools = body.get("tools")
    if not isinstance(tools, list):
        return frozenset()
    named = [tool.get("function") if api is Api.OPENAI else tool for tool in tools if isinstance(tool, dict)]
    return frozenset(str(tool["name"]) for tool in named if isinstance(tool, dict) and "name" in tool)


def characters(body: Mapping[str, Any]) -> int:
    """Of the whole prompt, system prompt and tools included: what a vendor would count."""
    return sum(len(json.dumps(body.get(part))) for part in ("messages", "system", "tools") if body.get(part))


def texts_in_order(mails: Sequence[Mail]) -> list[str]:
    """Every text of a correspondence, oldest first, the files' texts after their mail's."""
    return [text for mail in mails for text in (mail.body, *(content for _, content in mail.files)) if text]
