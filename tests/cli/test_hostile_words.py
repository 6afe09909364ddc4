"""Every command, over an API whose every text was written by somebody who wants the terminal."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
import pytest
from rich.text import Text

from tinyfat.cli import imaging
from tinyfat.cli.agent_steps import _report
from tinyfat.cli.client import Client, CommandFailed
from tinyfat.cli.logs import OneLine
from tinyfat.cli.main import main
from tinyfat.cli.output import one_line, visible
from tinyfat.image_builds import Listed

# OSC 52 (the clipboard), CSI, C1's CSI, carriage return, bell, delete, bidi override, line separator, half a surrogate
# pair, markup of rich that closes nothing or names a link, an emoji's name.
HOSTILE = (
    "a\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\rforged\x08\x7f\u202etxt\u2028x\ud800[/nothing][bold][link=http://evil]y[/link]:pile_of_poo:"
    "\n2026-01-01 00:00:00 box     forged line"
)
LISTS = (
    "steps", "attachments", "allowed", "alarms", "servers",
    "image_machines", "machines", "agents", "keys", "models", "vendors", "days",
    "calls", "lines", "addresses", "images", "prices", "spent", "ips", "moves", "pools", "orders", "what", "tables",
    "networks", "names", "runs", "rows", "disks", "kinds", "disk",
)  # fmt: skip
DICTS = ("machine", "turn", "month", "price", "caps", "spend", "usage", "today", "this_month", "sums", "cost")
FLAGS = ("box_outdated", "killed", "published", "estimated", "ok", "more", "low")


class Anything(dict[str, Any]):
    """Whatever is asked for is there."""

    def __missing__(self, key: str) -> Any:
        if key == "id":
            return self.setdefault(key, HOSTILE)
        if key.endswith("_at") or key in ("at", "since", "began", "ended", "day"):
            return "2026-01-01T00:00:00+00:00"
        if key in LISTS:
            return [HOSTILE] if key in ("allowed",) else [Anything()]
        if key in DICTS:
            return Anything()
        if key in FLAGS:
            return False
        if any(part in key for part in ("nanodollars", "bytes", "tokens", "count", "seconds", "share", "number")):
            return 7
        return HOSTILE

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]

    def __bool__(self) -> bool:
        return True


COMMANDS = (
    "agent list",
    "agent show ada",
    "agent allow ada x@y.org",
    "agent deny ada x@y.org",
    "agent replace ada --no-wait --yes",
    "agent publish ada --no-wait",
    "agent unpublish ada --no-wait",
    "agent keys list ada",
    "agent logs ada",
    "mail list ada",
    "mail show 1",
    "mail release 1",
    "fleet",
    "audit",
    "cap show ada",
    "cap kill ada",
    "key list ada",
    "byok list ada",
    "byok clear ada --vendor openai",
    "key add ada",
    "money",
    *(f"usage ada --by {by}" for by in ("day", "model", "turn")),
    "models",
    "disk",
    "doctor",
    "agent create ada --owner x@y.org",
    "agent destroy ada --yes",
    "image list",
    "cap set ada --month 1",
    "cap unkill ada",
)


_MONEY = dict.fromkeys(
    ("price", "machine", "inference", "paid_by_owner", "margin", "forecast_cost", "forecast_margin"), -7
) | {"name": HOSTILE, "plan": HOSTILE}
_DISK = {
    "path": HOSTILE,
    "what": [HOSTILE],
    "complaint": HOSTILE,
    "state": HOSTILE,
    "free": 7,
    "total": 7,
    "mail": True,
}
_TAKEN = {"kind": HOSTILE, "of": HOSTILE, "inside": "", "whole": False, "bytes": 7, "count": 7, "setting": HOSTILE}
_USED = {"of": HOSTILE, "paid_by_us": 7, "paid_by_owner": 7, "calls": 7, "input": 7, "cached": 7, "output": 7}
# Where much is a number, the answer as it is, each of its texts hostile; by the last part of what is asked.
EXACT: dict[str, Any] = {
    "money": {"month": HOSTILE, "agents": [_MONEY], "in_all": _MONEY},
    "usage": {
        "name": HOSTILE, "month": HOSTILE, "spent_nanodollars": 7, "reserved_nanodollars": 7, "calls": 7,
        "caps": {"month_nanodollars": 7, "month_included": True, "killed": True},
        "lines": [{**_USED, "estimated": True}],
    },
    "models": [
        {
            "alias": HOSTILE, "vendor": HOSTILE, "model": HOSTILE, "cliffs": [1], "key_set": False,
            "key_variable": HOSTILE, "price": {"input": 7, "cached": 7, "output": 7, "source": HOSTILE},
        }
    ],
    "disk": {"disks": [_DISK], "taken": [_TAKEN]},
    "disks": [_DISK],
    "status": {"machines": {"running": 1, "wanted": 2}, "alarms": 3, "seconds_up": HOSTILE, "process": HOSTILE},
}  # fmt: skip


def hostile_answer(self: Client, *parts: str, **more: Any) -> Any:
    if parts[-1] in EXACT:
        return EXACT[parts[-1]]
    if "body" in more or parts[0] == "destroyed":
        return Anything(state="destroyed")
    if parts[-1] in ("logs", "audit"):
        return [Anything(id=3, at=1_800_000_000.0)]
    if parts[-1] in ("mail", "keys", "ssh-keys", "agents", "byok", "sessions", "ssh", "models", "disk"):
        return [Anything()]
    return Anything(alarms=[HOSTILE]) if len(parts) == 2 and parts[0] == "agents" else Anything()


@contextlib.contextmanager
def hostile_api(tmp_path: Path) -> Iterator[None]:
    answers = dict.fromkeys(("get", "post", "delete"), hostile_answer)
    with (
        mock.patch.multiple(Client, __init__=lambda self, settings: None, **answers),
        mock.patch.object(Client, "page", lambda *a, **m: (hostile_answer(*a, **m), False)),
        mock.patch.object(imaging, "listed", lambda *a: [Listed(HOSTILE, 7, datetime.now(UTC), HOSTILE, 7)]),
        mock.patch.dict("os.environ", {"TINYFAT_HOME": str(tmp_path)}, clear=True),
        contextlib.chdir(tmp_path),
    ):
        yield


def said(tmp_path: Path, words: str) -> tuple[str, BaseException | None]:
    out, failed = io.StringIO(), None
    with (
        hostile_api(tmp_path),
        mock.patch("sys.argv", ["tinyfat", *words.split()]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        try:
            main()
        except SystemExit as ended:
            if ended.code not in (0, None) and words.split()[0] not in ("fleet", "doctor"):  # 1: alarms
                failed = ended
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            failed = error
    return out.getvalue(), failed


def steers(text: str) -> list[str]:
    return sorted({repr(c) for c in text if not c.isprintable() and c not in "\n\t"})


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
def test_no_text_of_a_stranger_steers_the_terminal(tmp_path: Path, words: str, as_json: bool) -> None:
    text, failed = said(tmp_path, f"{words} --json" if as_json else words)
    assert failed is None, f"{failed!r} {text}"
    assert steers(text) == []
    if as_json and text:
        json.loads(text)
    if words == "agent logs ada":
        assert len(text.splitlines()) == 1 or as_json


def test_an_error_of_the_control_plane_steers_nothing(tmp_path: Path) -> None:
    with mock.patch.object(Client, "get", side_effect=CommandFailed(HOSTILE)):
        out = io.StringIO()
        with (
            mock.patch.object(Client, "__init__", lambda self, settings: None),
            mock.patch("sys.argv", ["tinyfat", "fleet"]),
            contextlib.redirect_stderr(out),
            pytest.raises(SystemExit),
        ):
            main()
    assert steers(out.getvalue()) == []
    assert "[/nothing]" in out.getvalue()


@pytest.mark.parametrize("state", ["ready", "failed"])
def test_waiting_for_an_agent_steers_nothing(tmp_path: Path, state: str) -> None:
    with mock.patch.dict(EXACT, {"ada": Anything(state=state, name="ada"), "agents": Anything(name="ada")}):
        text, failed = said(tmp_path, "agent create ada --owner x@y.org --wait")
    assert (failed is not None) == (state == "failed")
    assert steers(text) == [] and "[/nothing]" in text


ODD_BODIES = (json.dumps({"error": HOSTILE}), json.dumps({"detail": [HOSTILE]}), "5", "[1]", "null", "", "[" * 100_000)


@pytest.mark.parametrize("code", [307, 400, 404, 409, 422, 500, 503])
@pytest.mark.parametrize("body", ODD_BODIES, ids=lambda body: body[:9])
def test_whatever_the_other_side_answers_is_words_and_an_exit_code(code: int, body: str) -> None:
    """What listens on the port may be something else than TinyFat."""
    with pytest.raises(CommandFailed):
        answered(code, body).get("agents", "ada")


@pytest.mark.parametrize("body", ["", "<html>", "[" * 100_000], ids=lambda body: body[:6])
def test_an_answer_that_is_no_json_is_words_too(body: str) -> None:
    for ask in (lambda: answered(200, body).get("x"), lambda: answered(200, body).page("x")):
        with pytest.raises(CommandFailed, match="is no TinyFat"):
            ask()


def answered(code: int, body: str) -> Client:
    client = Client.__new__(Client)
    client._where = "http://x"
    client._http = httpx2.Client(
        base_url="http://x", transport=httpx2.MockTransport(lambda request: httpx2.Response(code, text=body))
    )
    return client


def test_the_spinner_takes_no_markup() -> None:
    status = mock.Mock()
    agent = {"steps": [{"name": "made", "ended_at": None, "detail": ""}], "machine": {"complaint": HOSTILE}}
    _report(agent, set(), status)
    (shown,) = status.update.call_args.args
    assert (
        isinstance(shown, Text)
        and "[/nothing]" in shown.plain
        and steers(shown.plain) == []
        and "\n" not in shown.plain
    )


def test_no_log_line_is_forged() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.warning("box %s", f"0.1.0\n{HOSTILE}")
    try:
        raise ValueError(f"x\nERROR forged\x1b[2J{HOSTILE}")
    except ValueError:
        log.exception("it failed")
    lines = out.getvalue().splitlines()
    assert steers(out.getvalue()) == []
    assert [line for line in lines if not line.startswith("  ")] == [lines[0], "ERROR it failed"]


@pytest.mark.parametrize("character", [chr(n) for n in (*range(32), 127, *range(0x80, 0xA0), 0x202E, 0x2066, 0x200F)])
def test_no_control_character_is_visible(character: str) -> None:
    assert character not in one_line(f"a{character}b")
    assert character in "\n\t" or character not in visible(f"a{character}b")
