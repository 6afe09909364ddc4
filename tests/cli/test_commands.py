"""The commands, as a person and as a program uses them: what they print, how they end."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiosmtplib
import httpx2
import psutil
import psycopg
import pytest
import pytest_asyncio

from tests.box_processes import box_process
from tests.cli.in_process import command
from tests.machine_speed import patient
from tests.running import OWNER, TinyFat, free_port, letter, until
from tests.stories.town import Operator, PostOffice, new_id
from tinyfat.cli.home import Home
from tinyfat.sandbox.means import here
from tinyfat.store.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
FAILED, WRONG_USE, NOT_FOUND = 1, 2, 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tinyfat(office: PostOffice, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TinyFat]:
    home = tmp_path_factory.mktemp("commands") / "home"
    async with TinyFat(home, TINYFAT_SMARTHOST=f"127.0.0.1:{office.port}") as tinyfat:
        await tinyfat.make_agent("ada")
        yield tinyfat


@pytest_asyncio.fixture(loop_scope="module")
async def operator(tinyfat: TinyFat) -> AsyncIterator[Operator]:
    async with Operator(tinyfat) as operator:
        yield operator


@pytest_asyncio.fixture(loop_scope="module")
async def http(tinyfat: TinyFat) -> AsyncIterator[httpx2.AsyncClient]:
    """As the operator."""
    token = {"Authorization": f"Bearer {Home(tinyfat.home).operator_token()}"}
    where = f"http://127.0.0.1:{tinyfat.http_port}/api/"
    async with httpx2.AsyncClient(base_url=where, headers=token, trust_env=False) as client:
        yield client


def refused(tinyfat: TinyFat, code: int, *arguments: str) -> str:
    """What it says on standard error; on standard output it says nothing, but to a program."""
    ended = command(tinyfat, *arguments)
    assert ended.code == code, ended
    assert "Traceback" not in ended.err
    assert json.loads(ended.out)["error"]["exit_code"] == code if "--json" in arguments else ended.out == ""
    return " ".join(ended.err.split())


def said(tinyfat: TinyFat, *arguments: str) -> str:
    ended = command(tinyfat, *arguments)
    assert ended.code == 0, ended
    return ended.out


def told(tinyfat: TinyFat, *arguments: str) -> Any:
    return json.loads(said(tinyfat, *arguments, "--json"))


async def answered(tinyfat: TinyFat, office: PostOffice, text: str, **more: str) -> str:
    message_id = new_id()
    await tinyfat.send(letter(text, message_id=message_id, **more))
    await office.reply_to(message_id)
    return message_id


async def test_an_agent_from_create_to_destroy(tinyfat: TinyFat, operator: Operator) -> None:
    made = await tinyfat.json("agent", "create", "Bob", "--owner", "Owner@Example.ORG", "--runtime", "echo", "--wait")
    assert (made["name"], made["address"], made["owner"]) == ("bob", "bob@tinyfat.localhost", OWNER)
    assert (made["state"], made["runtime"], made["machine"]["state"]) == ("ready", "echo", "ready")
    assert [step["name"] for step in made["steps"]][-1] == "a real question answered"
    shown = told(tinyfat, "agent", "show", "bob")
    assert shown["id"] == made["id"] and shown["machine"]["kind"] == "process"
    assert {"ada", "bob"} <= {agent["name"] for agent in told(tinyfat, "agent", "list")}
    for words in (said(tinyfat, "agent", "list"), said(tinyfat, "agent", "show", "BOB")):
        assert "bob@tinyfat.localhost" in words and "ready" in words

    folder = tinyfat.home / "machines" / made["machine"]["id"]
    box = box_process(tinyfat.home, folder.name)
    everything = [box, *box.children(recursive=True)]
    assert len(everything) >= 2
    destroyed = await tinyfat.json("agent", "destroy", "bob", "--yes")
    assert (destroyed["id"], destroyed["state"]) == (made["id"], "destroyed")
    assert not folder.exists()
    assert [p for p in everything if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert "bob" not in {agent["name"] for agent in told(tinyfat, "agent", "list")}
    refused(tinyfat, NOT_FOUND, "agent", "show", "bob")
    with pytest.raises(Exception, match="550"):
        await tinyfat.send(letter("Hello?", to="bob@tinyfat.localhost"))
    again = await operator.make_agent("bob")  # the name is free
    assert again["id"] != made["id"]
    assert told(tinyfat, "mail", "list", "bob") == []


async def test_create_without_wait_says_how_to_follow_it(tinyfat: TinyFat, operator: Operator) -> None:
    words = said(tinyfat, "agent", "create", "cal", "--owner", OWNER, "--runtime", "echo")
    assert "tinyfat agent wait cal" in " ".join(words.split())

    async def ready() -> bool:
        return bool((await operator.ask("GET", "agents/cal"))["state"] == "ready")

    await until(ready, 60.0, "cal is ready")


async def test_said_again_a_making_goes_on_and_a_failed_one_begins_anew(tinyfat: TinyFat, operator: Operator) -> None:
    words = ("agent", "create", "eli", "--owner", OWNER, "--runtime", "echo")
    made = told(tinyfat, *words)
    assert told(tinyfat, *words)["id"] == made["id"]
    assert "another name" in refused(tinyfat, FAILED, *words[:3], "--owner", "else@example.org", "--runtime", "echo")
    assert "is ready" in said(tinyfat, "agent", "wait", "eli")
    assert "nothing to make anew" in refused(tinyfat, FAILED, "agent", "retry", "eli")
    async with await psycopg.AsyncConnection.connect(EmbeddedPostgres(tinyfat.home).url) as connection:
        await connection.execute("update agents set state = 'failed', reason = 'npm was away' where name = 'eli'")
    refusal = refused(tinyfat, FAILED, "agent", "wait", "eli", "--json")
    assert "npm was away" in refusal and "tinyfat agent retry eli" in refusal
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as deferred:
        await tinyfat.send(letter("Are you there?", to="eli@tinyfat.localhost"))
    assert [one.code for one in deferred.value.recipients] == [450]
    assert "is ready" in said(tinyfat, "agent", "retry", "eli", "--wait")


async def test_an_agent_destroyed_while_it_is_made_stays_destroyed(tinyfat: TinyFat, operator: Operator) -> None:
    said(tinyfat, "agent", "create", "dan", "--owner", OWNER, "--runtime", "echo")
    destroyed = told(tinyfat, "agent", "destroy", "dan", "--yes")
    assert destroyed["state"] == "destroyed"
    again = await operator.make_agent("dan")  # its name is free, and nothing of the first one comes back
    assert (await operator.ask("GET", f"destroyed/{destroyed['id']}"))["state"] == "destroyed"
    assert len([a for a in told(tinyfat, "agent", "list") if a["name"] == "dan"]) == 1
    machines = {path.name for path in (tinyfat.home / "machines").iterdir()}
    agents = {a["machine"]["id"] for a in told(tinyfat, "agent", "list")}
    assert again["machine"]["id"] in agents and machines == agents


@pytest.mark.parametrize(
    "name", ["", "-ada", "ada-", "a.b", "a_b", "a b", "postmaster", "ABUSE", "xn--ada", "x" * 64, "a\nb", "аdа", "a/b"]
)
async def test_a_name_that_cannot_be_is_refused(tinyfat: TinyFat, name: str) -> None:
    words = refused(tinyfat, WRONG_USE, "agent", "create", "--owner", OWNER, "--runtime", "echo", "--", name)
    assert "name" in words


async def test_a_name_that_is_taken_is_refused(tinyfat: TinyFat) -> None:
    words = refused(tinyfat, FAILED, "agent", "create", "ADA", "--owner", OWNER, "--runtime", "echo")
    assert "already" in words and "another name" in words


@pytest.mark.parametrize(
    "arguments",
    [
        ["agent", "create", "eve"],
        ["agent", "create", "eve", "--owner", "nobody"],
        ["agent", "create", "eve", "--owner", "@example.org"],
        ["agent", "create", "eve", "--owner", OWNER, "--runtime", "gpt"],
        ["agent", "create", "eve", "--owner", OWNER, "--machine", "cloud"],
        ["agent", "allow", "ada", "not an address"],
        ["agent", "allow", "ada", "@"],
        ["agent", "deny", "ada", OWNER],
        ["agent", "logs", "ada", "--lines", "0"],
        ["agent", "fly", "ada"],
        ["mail", "list", "ada", "--limit", "0"],
        ["mail", "list", "--state", "lost"],
        ["nothing"],
        ["agent", "show", "ada", "--nonsense"],
    ],
)
async def test_wrong_use_is_2_and_says_what_would_be_right(tinyfat: TinyFat, arguments: list[str]) -> None:
    assert refused(tinyfat, WRONG_USE, *arguments)
    assert "eve" not in {agent["name"] for agent in told(tinyfat, "agent", "list")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["agent", "show", "nobody"],
        ["agent", "destroy", "nobody", "--yes"],
        ["agent", "allow", "nobody", "x@example.org"],
        ["agent", "deny", "nobody", "x@example.org"],
        ["agent", "logs", "nobody"],
        ["mail", "list", "nobody"],
        ["mail", "list", "ada", "--before", "00000000"],
        ["mail", "show", "nothing"],
        ["mail", "show", "%"],
        ["mail", "show", "________"],
        ["mail", "show", "../status"],
        ["mail", "show", "a/b"],
        ["mail", "show", ""],
        ["agent", "show", ""],
        ["agent", "show", ".."],
        ["mail", "show", "00000000-0000-0000-0000-000000000000"],
        ["mail", "release", "nothing"],
    ],
)
@pytest.mark.parametrize("as_json", [[], ["--json"]])
async def test_what_is_not_there_is_3(tinyfat: TinyFat, arguments: list[str], as_json: list[str]) -> None:
    words = refused(tinyfat, NOT_FOUND, *arguments, *as_json)
    assert "There is no" in words and "tinyfat" in words


async def test_allow_and_deny(tinyfat: TinyFat) -> None:
    allowed = told(tinyfat, "agent", "allow", "ada", "Friend@Example.ORG")
    assert allowed["allowed"] == ["friend@example.org"]
    assert "@far.example" in said(tinyfat, "agent", "allow", "ada", "@Far.Example")
    assert told(tinyfat, "agent", "show", "ada")["allowed"] == ["@far.example", "friend@example.org"]
    assert "@far.example" in said(tinyfat, "agent", "show", "ada")
    denied = told(tinyfat, "agent", "deny", "ada", "friend@example.org")
    assert denied["allowed"] == ["@far.example"] and denied["removed"] is True
    assert told(tinyfat, "agent", "deny", "ada", "friend@example.org")["removed"] is False
    assert "was not on the list" in said(tinyfat, "agent", "deny", "ada", "friend@example.org")
    said(tinyfat, "agent", "deny", "ada", "@far.example")
    said(tinyfat, "agent", "allow", "ada", "a/b@example.org")
    assert told(tinyfat, "agent", "deny", "ada", "a/b@example.org")["removed"] is True


async def test_mail_list_and_show_and_release(tinyfat: TinyFat, office: PostOffice, operator: Operator) -> None:
    first = await answered(tinyfat, office, "Hello, Ada.", subject="A \x1b[31mred\x1b[0m subject".replace("\x1b", "="))
    rows: list[dict[str, Any]] = told(tinyfat, "mail", "list", "ada")
    coming = next(m for m in rows if m["message_id"] == first)
    going = next(m for m in rows if m["in_reply_to"] == first)
    assert (coming["direction"], going["direction"]) == ("in", "out")
    assert (coming["state"], coming["thread"]) == ("answered", going["thread"])
    assert going["message_id"].startswith("<") and going["message_id"].endswith("@tinyfat.localhost>")
    assert datetime.fromisoformat(coming["at"]) <= datetime.fromisoformat(going["at"])
    shown = told(tinyfat, "mail", "show", coming["id"])
    assert shown["text"].strip() == "Hello, Ada." and "Message-ID" in shown["raw"]
    assert (shown["turn"]["state"], shown["turn"]["outcome"]) == ("answered", "answered")
    assert "Hello, Ada." in said(tinyfat, "mail", "show", going["id"])
    assert coming["id"][:8] in said(tinyfat, "mail", "list", "ada")
    assert told(tinyfat, "mail", "show", coming["id"][:8])["id"] == coming["id"]

    stranger = new_id()
    await tinyfat.send(
        letter("Let me in.", sender="s@strange.example", message_id=stranger), mail_from="s@strange.example"
    )
    kept = await operator.incoming("ada", stranger)
    assert "quarantined" in said(tinyfat, "mail", "list", "ada")
    assert "tinyfat agent allow" in " ".join(said(tinyfat, "mail", "release", kept["id"]).split())
    await office.reply_to(stranger)
    assert "is answered" in refused(tinyfat, FAILED, "mail", "release", kept["id"])
    assert "can be released" in refused(tinyfat, FAILED, "mail", "release", going["id"])
    second = new_id()
    await tinyfat.send(
        letter("And again.", sender="s@strange.example", message_id=second), mail_from="s@strange.example"
    )
    released = told(tinyfat, "mail", "release", (await operator.incoming("ada", second))["id"])
    assert released["state"] in ("queued", "running", "answered") and released["message_id"] == second


async def test_nothing_in_a_mail_steers_the_terminal(tinyfat: TinyFat, office: PostOffice, operator: Operator) -> None:
    message_id = new_id()
    raw = letter("x", message_id=message_id).as_bytes()
    raw = raw.replace(b"Subject: Hello", b"Subject: =?utf-8?q?=1B]0;owned=07=1B[31m=E2=80=AE?=").replace(
        b"\nx", b"\n\x1b[2J\x9b31m[bold]markup[/bold]"
    )
    await tinyfat.send(raw, to="ada@tinyfat.localhost")
    await office.reply_to(message_id)
    row = await operator.incoming("ada", message_id)
    words = [said(tinyfat, "mail", "list", "ada"), said(tinyfat, "mail", "show", row["id"])]
    assert [c for c in "".join(words) if not (c.isprintable() or c == "\n")] == []
    assert "[bold]markup[/bold]" in words[1]


async def test_logs_and_logs_that_follow(tinyfat: TinyFat, operator: Operator) -> None:
    lines = told(tinyfat, "agent", "logs", "ada")
    assert {"id", "at", "source", "text"} <= set(lines[0]) and {line["source"] for line in lines} >= {"box"}
    assert lines[-1]["text"] in said(tinyfat, "agent", "logs", "ada")
    assert len(said(tinyfat, "agent", "logs", "ada", "--lines", "1").splitlines()) == 1
    following = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tinyfat", "agent", "logs", "ada", "--follow", "--json",
        env={**tinyfat.environment, "PYTHONUNBUFFERED": "1"}, stdout=asyncio.subprocess.PIPE, cwd=tinyfat.home.parent,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever began the tests may ignore it
    )  # fmt: skip
    assert following.stdout is not None
    try:
        async with asyncio.timeout(patient(30)):
            seen = json.loads(await following.stdout.readline())
            assert seen["id"] == lines[0]["id"]
            await tinyfat.send(letter("echo: crash", message_id=new_id()))  # the box will have something to say
            while seen["id"] <= lines[-1]["id"]:
                seen = json.loads(await following.stdout.readline())
    finally:
        following.send_signal(signal.SIGINT)
        await following.wait()
    assert following.returncode == 130


async def test_mail_list_says_that_there_is_more_and_how_to_see_it(
    tinyfat: TinyFat, office: PostOffice, operator: Operator
) -> None:
    await answered(tinyfat, office, "One.")
    await answered(tinyfat, office, "Two.")
    kept = new_id()
    await tinyfat.send(letter("In?", sender="t@strange.example", message_id=kept), mail_from="t@strange.example")
    whole = [row["id"] for row in told(tinyfat, "mail", "list", "ada")]
    pages: list[str] = []
    for _ in whole:
        more = ["--before", pages[0]] if pages else []
        ended = command(tinyfat, "mail", "list", "ada", "--limit", "2", "--json", *more)
        pages = [row["id"] for row in json.loads(ended.out)] + pages
        if "There are more" not in ended.err:
            break
        assert f"mail list ada --limit 2 --before {pages[0][:13]}" in " ".join(ended.err.split())
    assert pages == whole
    strangers = told(tinyfat, "mail", "list", "--state", "quarantined")
    assert kept in {row["message_id"] for row in strangers}
    assert {row["state"] for row in strangers} == {"quarantined"}
    assert " ada " in said(tinyfat, "mail", "list", "--state", "quarantined")
    assert len(told(tinyfat, "mail", "list")) >= len(whole)


async def test_a_list_of_mails_fits_a_terminal(tinyfat: TinyFat, office: PostOffice, operator: Operator) -> None:
    subject = "A subject that is a good deal longer than a terminal of eighty columns is wide, and then some"
    await answered(tinyfat, office, "Are you there?", subject=subject)
    await tinyfat.send(letter("Let me in.", sender="a.very.long.name@a.very.long.domain.example"))
    await until(lambda: _listed(operator, "quarantined"), 30.0, "the stranger's mail is kept")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tinyfat", "mail", "list", env=tinyfat.environment | {"COLUMNS": "80"},
        stdout=asyncio.subprocess.PIPE, cwd=tinyfat.home.parent,
    )  # fmt: skip
    out, _ = await process.communicate()
    lines = out.decode().splitlines()
    mails = await operator.ask("GET", "mail")
    assert len(lines) == len(mails) + sum(bool(one["reason"]) for one in mails)


async def _listed(operator: Operator, state: str) -> bool:
    return any(one["state"] == state for one in await operator.ask("GET", "mail"))


async def test_a_browser_is_told_what_this_is(tinyfat: TinyFat) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{tinyfat.http_port}", trust_env=False) as client:
        page = await client.get("/", headers={"accept": "text/html"})
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        assert "TinyFat runs here" in page.text and "default-src 'none'" in page.headers["content-security-policy"]
        assert (await client.get("/nothing")).status_code == 401  # what is not named is the operator's


async def test_what_is_written_to_postmaster_is_the_operators(tinyfat: TinyFat, operator: Operator) -> None:
    assert "Nobody has written" in said(tinyfat, "mail", "list", "--operator")
    both = ["Postmaster@tinyfat.localhost", "ada@tinyfat.localhost"]
    complaint = letter("You send spam.", sender="desk@isp.example", subject="Abuse", message_id=new_id())
    await tinyfat.send(complaint, mail_from="desk@isp.example", to=both)
    await tinyfat.send(complaint, mail_from="", to="postmaster")
    [kept] = told(tinyfat, "mail", "list", "--operator")
    assert (kept["mailbox"], kept["sender"], kept["subject"]) == ("postmaster", "desk@isp.example", "Abuse")
    assert "desk@isp.example" in said(tinyfat, "mail", "list", "--operator")
    assert "You send spam." in said(tinyfat, "mail", "show", kept["id"][:8])
    assert told(tinyfat, "mail", "show", kept["id"])["text"].strip() == "You send spam."
    assert (await operator.incoming("ada", str(complaint["Message-ID"])))["state"] == "quarantined"
    refused(tinyfat, WRONG_USE, "mail", "list", "ada", "--operator")
    refused(tinyfat, NOT_FOUND, "mail", "show", "ffffffff")


async def test_whoever_is_let_in_may_have_what_waits_answered(
    tinyfat: TinyFat, office: PostOffice, operator: Operator
) -> None:
    friend, first, second = "pal@pals.example", new_id(), new_id()
    await tinyfat.send(letter("Let me in.", sender=friend, message_id=first), mail_from=friend)
    kept = await operator.incoming("ada", first)
    waiting = told(tinyfat, "agent", "allow", "ada", "@pals.example")
    assert (waiting["waiting"], waiting["released"]) == ([kept["id"]], [])
    assert "1 mail of that sender: still there" in said(tinyfat, "agent", "allow", "ada", friend)
    assert (await operator.incoming("ada", first))["state"] == "quarantined"
    assert "answered now" in said(tinyfat, "agent", "allow", "ada", friend, "--release")
    await office.reply_to(first)
    assert told(tinyfat, "agent", "allow", "ada", friend)["waiting"] == []
    for pattern in (friend, "@pals.example"):
        told(tinyfat, "agent", "deny", "ada", pattern)
    await tinyfat.send(letter("Me again.", sender=friend, message_id=second), mail_from=friend)
    assert told(tinyfat, "agent", "allow", "ada", "other@pals.example")["waiting"] == []


async def test_disk_says_what_takes_room_and_what_bounds_it(tinyfat: TinyFat, office: PostOffice) -> None:
    await answered(tinyfat, office, "What takes room?")
    found = told(tinyfat, "disk")
    assert {"home", "database", "cache"} <= {what for disk in found["disks"] for what in disk["what"]}
    assert all(disk["total"] >= disk["free"] > 0 for disk in found["disks"])
    taken = {(one["kind"], one["of"]): one for one in found["taken"]}
    assert taken["machine", "ada"]["bytes"] > 0 and taken["machine", "ada"]["whole"]
    assert taken["table message_bodies", ""]["bytes"] > 0
    assert "TINYFAT_KEEP_BODIES" in taken["bodies: mail", ""]["setting"]
    assert taken["bodies: mail", ""]["count"] > 0 and taken["write-ahead log", ""]["bytes"] > 0
    parts = sum(one["bytes"] for one in found["taken"] if one["inside"] == "database")
    assert parts <= taken["database", ""]["bytes"]
    shown = said(tinyfat, "disk")
    assert "TINYFAT_KEEP_LOGS" in shown and "machine ada" in shown


async def test_doctor_says_what_works(tinyfat: TinyFat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(tinyfat.environment, "TINYFAT_SMARTHOST")
    looked = await tinyfat.json("doctor")  # in a process of its own: the smarthost is of this one
    findings = {f["what"]: f for f in looked}
    disks = " ".join(f["words"] for f in looked if f["what"] == "disk")
    assert all(what in disks for what in ("home", "database", "cache"))
    assert {"python", "home", "disk", "postgres", "tinyfat", "smtp", "http", "model", "smarthost"} <= set(findings)
    assert findings["tinyfat"]["verdict"] == "ok" and findings["smarthost"]["verdict"] == "ok"
    assert "tried" in findings["smarthost"]["words"]  # by the running process: this command has no such setting
    assert findings["model"]["verdict"] == "ok" and "TINYFAT_MODEL_URL" in findings["model"]["words"]
    assert "TINYFAT_SMTP_LISTEN" in await tinyfat.command("doctor")


async def test_doctor_says_what_does_not_and_what_to_do(tmp_path: Path) -> None:
    down = TinyFat(
        tmp_path / "home",
        TINYFAT_SMARTHOST=f"127.0.0.1:{free_port()}",
        TINYFAT_DATABASE_URL="postgresql://127.0.0.1:1/none",
        TINYFAT_MAIL_TRUST="0.0.0.0/0",
    )
    ended = command(down, "doctor", "--json")
    assert ended.code == FAILED
    findings = {f["what"]: f for f in json.loads(ended.out)}
    for what in ("smarthost", "postgres", "senders"):
        assert findings[what]["verdict"] == "wrong" and findings[what]["advice"], what
    assert findings["tinyfat"]["verdict"] == "note" and "tinyfat up" in findings["tinyfat"]["advice"]
    assert not down.home.exists()  # looking makes nothing


@pytest.mark.parametrize(
    "arguments", [["agent", "list"], ["mail", "list", "ada"], ["agent", "create", "a", "--owner", OWNER]]
)
async def test_without_a_running_one_a_command_says_how_to_start_it(tmp_path: Path, arguments: list[str]) -> None:
    assert "tinyfat up" in refused(TinyFat(tmp_path / "home"), FAILED, *arguments)


async def test_a_wrong_setting_is_2_and_named(tmp_path: Path) -> None:
    wrong = TinyFat(tmp_path / "home", TINYFAT_SMTP_LISTEN="2525")
    for arguments in (["up"], ["agent", "list"], ["doctor"]):
        words = refused(wrong, WRONG_USE, *arguments)
        assert "TINYFAT_SMTP_LISTEN" in words and "HOST:PORT" in words
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "tinyfat.toml").write_text('domain = "a b"\n')
    right = TinyFat(tmp_path / "home")
    words = refused(right, WRONG_USE, "up")
    assert "tinyfat.toml: domain" in words and "a b" in words


async def test_version_and_help(tinyfat: TinyFat) -> None:
    assert said(tinyfat, "version").strip()
    for words in ([], ["agent"], ["mail"], ["agent", "create"]):
        assert "Usage" in said(tinyfat, *words, "--help")


async def test_without_a_sandbox_a_second_owner_of_processes_is_refused_in_words(tmp_path: Path) -> None:
    """Each program of such an agent can do what the operator can."""
    alone = {"TINYFAT_PROCESS_SHARED": "false", "TINYFAT_PROCESS_SANDBOX": "false"}
    async with TinyFat(tmp_path / "home", **alone) as house:
        first = command(house, "agent", "create", "ada", "--owner", "a@example.org", "--runtime", "echo")
        assert first.code == 0 and "every key of TinyFat" in " ".join(first.err.split())
        words = refused(house, 2, "agent", "create", "bob", "--owner", "b@example.org", "--runtime", "echo")
        assert "a@example.org" in words and "TINYFAT_PROCESS_SHARED" in words
        assert command(house, "agent", "create", "cy", "--owner", "a@example.org", "--runtime", "echo").code == 0
        found = json.loads(command(house, "doctor", "--json").out)
        (sandbox,) = [one for one in found if one["what"] == "sandbox"]
        assert sandbox["verdict"] == "note" and "every key of TinyFat" in sandbox["words"]


@pytest.mark.skipif(not here().all, reason="the sandbox has gaps on this kernel: `tinyfat doctor` says which")
async def test_in_a_sandbox_that_holds_a_second_owner_is_welcome(tmp_path: Path) -> None:
    async with TinyFat(tmp_path / "home", TINYFAT_PROCESS_SHARED="false") as house:
        for name in ("ada", "bob"):
            made = command(house, "agent", "create", name, "--owner", f"{name}@example.org", "--runtime", "echo")
            assert made.code == 0 and "in a sandbox" in " ".join(made.err.split())
        found = json.loads(command(house, "doctor", "--json").out)
        assert [one["verdict"] for one in found if one["what"] == "sandbox"] == ["ok"]
        await house.stop()
        assert "can reach each other" not in house.log.read_text()
        house.environment["TINYFAT_PROCESS_SANDBOX"] = "false"  # as under another kernel
        await house.start()

        async def said_so() -> bool:
            return "agents of ada@example.org, bob@example.org, and can reach each other" in house.log.read_text()

        await until(said_so, 30.0, "`up` says that owners are side by side without a sandbox")


async def test_a_name_is_given_away_by_an_option_alone(tinyfat: TinyFat, http: httpx2.AsyncClient) -> None:
    """By the command and over HTTP; people may still write to the agent that had it."""
    made = ["agent", "create", "heir", "--runtime", "echo", "--owner"]
    first = json.loads(said(tinyfat, *made, "first@example.org", "--wait", "--json"))
    assert "already" in refused(tinyfat, FAILED, *made, "second@example.org", "--take-name")
    said(tinyfat, "agent", "destroy", "heir", "--yes")
    assert "--take-name" in refused(tinyfat, FAILED, *made, "second@example.org")
    body = {"name": "heir", "owner": "second@example.org", "runtime": "echo"}
    answer = await http.post("agents", json=body)
    assert answer.status_code == 409 and "kept for that owner" in answer.json()["error"]
    for odd in ("perhaps", 2, None, []):
        assert (await http.post("agents", json={**body, "take_name": odd})).status_code == 422
    assert "heir" not in said(tinyfat, "agent", "list")
    second = json.loads(said(tinyfat, *made, "second@example.org", "--take-name", "--wait", "--json"))
    assert (second["owner"], second["allowed"]) == ("second@example.org", []) and second["id"] != first["id"]
    assert json.loads(said(tinyfat, "mail", "list", "heir", "--json")) == []
    said(tinyfat, "agent", "destroy", "heir", "--yes")
    taken = await http.post("agents", json={**body, "owner": "third@example.org", "take_name": True})
    assert taken.status_code == 201, taken.text
    said(tinyfat, "agent", "destroy", "heir", "--yes")
