"""The echo runtime's one question to its model, where a mail orders it: by the way every runtime's calls take."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any
from urllib.parse import urlsplit

from tinyfat.box.runtimes.echo_script import MODEL_KEY_VARIABLE, MODEL_VARIABLE
from tinyfat.box.runtimes.loopback import http_post

ANSWER_TOKENS_MAX = 1000
ANSWER_SECONDS_MAX = 300.0
WORDS_CHARS_MAX = 300  # of an error


def session_id(session: str) -> str:
    """As OpenClaw has one for each of its sessions; this one needs no keeping."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, session))


async def ask_model(question: str, session: str) -> str:
    """Its answer's text. It says whose question it is, as OpenClaw does. Raises OSError, ValueError."""
    model = json.loads(os.environ.get(MODEL_VARIABLE, "{}"))
    if not model:
        raise ValueError(f"{MODEL_VARIABLE} is not set")
    anthropic = model["api"] == "anthropic-messages"
    path = "/v1/messages" if anthropic else urlsplit(model["url"]).path + "/chat/completions"
    body = {
        "model": model["model"],
        "max_tokens": ANSWER_TOKENS_MAX,
        "messages": [{"role": "user", "content": question}],
    }
    key = os.environ.get(MODEL_KEY_VARIABLE, "")
    status, raw = await http_post(
        model["url"], path, key, json.dumps(body).encode(),
        more={"x-session-affinity": f"{session_id(session)}:0"}, seconds_max=ANSWER_SECONDS_MAX,
    )  # fmt: skip
    if status != 200:
        raise ValueError(f"it answered {status}: {raw[:WORDS_CHARS_MAX].decode('utf-8', 'replace')}")
    return _text(json.loads(raw), anthropic)


def _text(answer: Any, anthropic: bool) -> str:
    try:
        if anthropic:
            return "".join(part["text"] for part in answer["content"] if part["type"] == "text")
        return str(answer["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"its answer cannot be read: {type(error).__name__}") from None
