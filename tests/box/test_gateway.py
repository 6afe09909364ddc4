from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.box.scripted_gateway import TOKEN, Handler, Request, ScriptedGateway, history, question, said
from tinyfat.box.runtime import RuntimeUnavailable
from tinyfat.box.runtimes import gateway_sessions
from tinyfat.box.runtimes.gateway import NOTHING_SAID, GatewayClient, split_files
from tinyfat.box.runtimes.gateway_connection import Limits
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.turns import Attachment, Turn, TurnOutcome

NOTE = Attachment("note.txt", "text/plain", b"the key is under the mat")


def turn(turn_id: str = "t1", *attachments: Attachment, seconds: float = 20.0, text: str = "From: e\n\nhi") -> Turn:
    return Turn(turn_id, "email:thread", text, seconds, attachments)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace" / "out").mkdir(parents=True)
    return tmp_path / "workspace"


@asynccontextmanager
async def gateway(
    workspace: Path, policy: dict[str, Any] | None = None, token: str = TOKEN, **handlers: Handler
) -> AsyncIterator[tuple[ScriptedGateway, GatewayClient]]:
    named = {name.replace("_", "."): handler for name, handler in handlers.items()}
    async with ScriptedGateway(named, policy) as server:
        client = GatewayClient(server.url, token, workspace, clock=_ticking(), poll_seconds=0.001)
        yield server, client
        await client.close()


def _ticking() -> Callable[[], float]:
    seconds = iter(range(1000, 100_000))
    return lambda: float(next(seconds))


async def answers(request: Request, text: str = "Hello", **part: Any) -> None:
    """What `agent` sends: accepted, then the result."""
    await request.reply(runId=request.params["idempotencyKey"], status="accepted")
    meta = {"agentMeta": {"usage": {"input": 10, "output": 3, "total": 13, "cost": {"total": 0}}}}
    await request.reply(status="ok", result={"payloads": [{"text": text, **part}], "meta": meta})


async def nothing_there(request: Request) -> None:
    await request.reply(**history())


async def test_a_turn_is_asked_and_answered(workspace: Path) -> None:
    async with gateway(workspace, agent=answers) as (server, client):
        result = await client.answer(turn(seconds=90.2), False, "You are ada.")

    assert (result.outcome, result.text) == (TurnOutcome.ANSWERED, "Hello")
    assert (result.received_at, result.answered_at) == (1000.0, 1001.0)
    assert result.usage == {"input": 10, "output": 3, "total": 13}
    assert server.requests[0].params == {
        "message": "From: e\n\nhi",
        "sessionKey": "email:thread",
        "idempotencyKey": "t1",
        "deliver": False,
        "timeout": 91,
        "extraSystemPrompt": "You are ada.",
    }


async def test_turns_share_one_connection(workspace: Path) -> None:
    both = asyncio.Barrier(2)

    async def together(request: Request) -> None:
        await both.wait()
        await answers(request, request.params["idempotencyKey"])

    async with gateway(workspace, agent=together) as (server, client):
        results = await asyncio.gather(*(client.answer(turn(name), False, "") for name in ("a", "b")))

    assert [result.text for result in results] == ["a", "b"]
    assert server.connects == 1


async def test_a_lost_connection_is_said_and_the_answer_found_later(workspace: Path) -> None:
    async def lost(request: Request) -> None:
        await request.reply(status="accepted")
        await request.hang_up()

    async def found(request: Request) -> None:
        await request.reply(**history(question("t1"), said("Hello")))

    async with gateway(workspace, agent=lost, chat_history=found) as (server, client):
        with pytest.raises(RuntimeUnavailable, match="lost"):
            await client.answer(turn(), False, "")
        result = await client.answer(turn(), True, "")

    assert (result.outcome, result.text, result.answered_at) == (TurnOutcome.ANSWERED, "Hello", 2.0)
    assert len(server.asked("agent")) == 1
    assert server.connects == 2


async def test_a_turn_that_still_runs_is_waited_for_and_not_asked(workspace: Path) -> None:
    looks = iter([history(question("t1"), status="running")] * 3)

    async def later(request: Request) -> None:
        await request.reply(**next(looks, history(question("t1"), said("At last"))))

    async with gateway(workspace, chat_history=later) as (server, client):
        result = await client.answer(turn(), True, "")

    assert result.text == "At last"
    assert len(server.asked("chat.history")) == 4


@pytest.mark.parametrize(
    ("rows", "key"),
    [(history(), "t1"), (history(question("t1")), "t1/2"), (history(question("t1"), question("t1/2")), "t1/3")],
)
async def test_a_turn_without_an_answer_is_asked_once_more(workspace: Path, rows: dict[str, Any], key: str) -> None:
    async def left(request: Request) -> None:
        await request.reply(**rows)

    async with gateway(workspace, agent=answers, chat_history=left) as (server, client):
        result = await client.answer(turn(), True, "")

    assert result.text == "Hello"
    assert [request.params["idempotencyKey"] for request in server.asked("agent")] == [key]


async def test_a_turn_that_never_leads_to_an_answer_is_given_up(workspace: Path) -> None:
    async def five(request: Request) -> None:
        await request.reply(**history(*(question(key) for key in ("t1", "t1/2", "t1/3", "t1/4", "t1/5"))))

    async with gateway(workspace, chat_history=five) as (_, client):
        result = await client.answer(turn(), True, "")

    assert (result.outcome, result.failure) == (TurnOutcome.FAILED, NOTHING_SAID)


async def test_a_failed_run_is_a_failed_turn(workspace: Path) -> None:
    async def fails(request: Request) -> None:
        await request.reply(status="accepted")
        await request.refuse("UNAVAILABLE", "host/main request failed (HTTP 500).", runId="t1", status="error")

    async with gateway(workspace, agent=fails) as (_, client):
        result = await client.answer(turn(), False, "")

    assert (result.outcome, result.failure) == (TurnOutcome.FAILED, Failure(FailureId.MODEL_UNREACHABLE))
    assert "HTTP 500" in result.detail
    assert (result.received_at, result.answered_at) == (1000.0, 1001.0)


async def test_an_error_in_the_result_is_a_failed_turn(workspace: Path) -> None:
    async def fails(request: Request) -> None:
        await request.reply(status="error", summary="failed", result={"payloads": [{"text": "bad", "isError": True}]})

    async with gateway(workspace, agent=fails) as (_, client):
        result = await client.answer(turn(), False, "")

    assert (result.outcome, result.detail) == (TurnOutcome.FAILED, "bad")


async def test_an_empty_answer_is_a_failed_turn(workspace: Path) -> None:
    async with gateway(workspace, agent=lambda request: answers(request, "")) as (_, client):
        result = await client.answer(turn(), False, "")

    assert (result.outcome, result.failure) == (TurnOutcome.FAILED, NOTHING_SAID)


async def test_a_gateway_that_cannot_take_it_now_is_asked_again_later(workspace: Path) -> None:
    async def drains(request: Request) -> None:
        await request.refuse("UNAVAILABLE", "draining")

    async with gateway(workspace, agent=drains) as (_, client):
        with pytest.raises(RuntimeUnavailable, match="draining"):
            await client.answer(turn(), False, "")


async def test_a_message_that_the_gateway_refuses_fails_for_good(workspace: Path) -> None:
    async def refuses(request: Request) -> None:
        await request.refuse("INVALID_REQUEST", "message too long")

    async with gateway(workspace, agent=refuses) as (_, client):
        result = await client.answer(turn(), False, "")

    assert result.outcome is TurnOutcome.FAILED
    assert "message too long" in result.detail


async def test_a_gateway_that_starts_or_is_away_is_unavailable(workspace: Path) -> None:
    async with gateway(workspace) as (server, client):
        server.refuse_connect = ("UNAVAILABLE", "gateway starting")
        with pytest.raises(RuntimeUnavailable, match="starting"):
            await client.answer(turn(), False, "")
    with pytest.raises(RuntimeUnavailable, match="no connection"):
        await client.answer(turn(), False, "")


async def test_a_wrong_token_is_unavailable_and_not_shown(workspace: Path) -> None:
    async with gateway(workspace, token="not-the-token") as (_, client):
        with pytest.raises(RuntimeUnavailable) as caught:
            await client.answer(turn(), False, "")

    assert "not-the-token" not in str(caught.value)


async def test_past_its_deadline_a_turn_is_stopped(workspace: Path) -> None:
    aborted = asyncio.Event()

    async def never(request: Request) -> None:
        await request.reply(status="accepted")

    async def abort(request: Request) -> None:
        aborted.set()
        await request.reply(ok=True)

    async with gateway(workspace, agent=never, chat_abort=abort) as (server, client):
        with pytest.raises(RuntimeUnavailable, match="no answer within"):
            await client.answer(turn(seconds=1.0), False, "")

        assert aborted.is_set()
    assert server.asked("chat.abort")[0].params == {"sessionKey": "email:thread"}


async def test_files_go_by_chat_send_and_the_answer_comes_from_the_history(workspace: Path) -> None:
    async def takes(request: Request) -> None:
        await request.reply(runId="t1", status="started")

    waits = iter([{"runId": "t1", "status": "timeout"}])

    async def waited(request: Request) -> None:
        await request.reply(**next(waits, {"runId": "t1", "status": "ok", "endedAt": 5}))

    async def written(request: Request) -> None:
        await request.reply(**history(question("t1"), said("Under the mat")))

    handlers = {"chat_send": takes, "agent_wait": waited, "chat_history": written}
    async with gateway(workspace, **handlers) as (server, client):
        result = await client.answer(turn("t1", NOTE), False, "")

    sent = server.asked("chat.send")[0].params
    assert result.text == "Under the mat"
    assert len(server.asked("agent.wait")) == 2
    assert (sent["suppressCommandInterpretation"], sent["queueMode"]) == (True, "followup")
    assert sent["attachments"] == [
        {
            "type": "file",
            "mimeType": "text/plain",
            "fileName": "note.txt",
            "content": base64.b64encode(NOTE.content).decode(),
        }
    ]


async def test_a_file_too_large_for_the_gateway_is_saved_in_the_workspace(workspace: Path) -> None:
    async def takes(request: Request) -> None:
        await request.reply(status="started")

    async def waited(request: Request) -> None:
        await request.reply(status="ok")

    async def written(request: Request) -> None:
        await request.reply(**history(question("t1"), said("Got it")))

    policy = {"maxPayload": 10**6, "attachments": {"maxBytes": 20, "maxImageBytes": 5}}
    handlers = {"chat_send": takes, "agent_wait": waited, "chat_history": written}
    async with gateway(workspace, policy, **handlers) as (server, client):
        await client.answer(turn("t1", NOTE), False, "")

    sent = server.asked("chat.send")[0].params
    (saved,) = workspace.glob("inbox/*/1-note.txt")
    assert sent["attachments"] == []
    assert f"[Attached file saved in the workspace: {saved.relative_to(workspace)}]" in sent["message"]
    assert saved.read_bytes() == NOTE.content


async def test_files_of_an_answer_come_from_the_workspace_alone(workspace: Path, tmp_path: Path) -> None:
    (workspace / "out" / "report.txt").write_text("done")
    (tmp_path / "secret").write_text("secret")
    urls = ["./out/report.txt", "../secret", str(tmp_path / "secret")]

    async def attaches(request: Request) -> None:
        await answers(request, "Here it is.", mediaUrls=urls)

    async with gateway(workspace, agent=attaches) as (_, client):
        result = await client.answer(turn(), False, "")

    assert result.attachments == (Attachment("report.txt", "text/plain", b"done"),)
    assert result.detail.count("outside the workspace") == 2


async def test_a_file_that_the_gateway_kept_is_fetched(workspace: Path) -> None:
    kept = {"type": "attachment", "attachment": {"artifactId": "artifact_1"}}
    row = {**said("x"), "content": [{"type": "text", "text": "Here"}, kept]}

    async def written(request: Request) -> None:
        await request.reply(**history(question("t1"), row))

    async def download(request: Request) -> None:
        about = {"id": "artifact_1", "title": "x.txt", "mimeType": "text/plain"}
        await request.reply(artifact=about, data=base64.b64encode(b"content").decode())

    handlers = {"chat_history": written, "artifacts_download": download}
    async with gateway(workspace, **handlers) as (_, client):
        result = await client.answer(turn(), True, "")

    assert (result.text, result.attachments) == ("Here", (Attachment("x.txt", "text/plain", b"content"),))


async def test_a_text_is_made_fit_for_the_gateway(workspace: Path) -> None:
    async with gateway(workspace, agent=answers) as (server, client):
        await client.answer(turn("t1", text="a\x00b"), False, "")
        await client.answer(turn("t2", text=""), False, "")

    assert [request.params["message"] for request in server.requests] == ["ab", "(empty message)"]


def test_files_are_sent_as_long_as_a_request_holds_them() -> None:
    files = [Attachment(f"{n}.bin", "application/octet-stream", b"x" * 300_000) for n in range(3)]
    image = Attachment("i.png", "image/png", b"x" * 2000)
    empty = Attachment("empty", "text/plain", b"")

    sent, kept = split_files([*files, image, empty], Limits(payload=1_000_000, attachment=400_000, image=1000), 10)

    assert [file.filename for file in sent] == ["0.bin", "1.bin"]
    assert [file.filename for file in kept] == ["2.bin", "i.png", "empty"]


async def test_nothing_there_means_asked_under_the_same_key(workspace: Path) -> None:
    async with gateway(workspace, agent=answers, chat_history=nothing_there) as (server, client):
        await client.answer(turn(), True, "")

    assert server.asked("agent")[0].params["idempotencyKey"] == "t1"


IDS = {"id-boat": "agent:main:email:boat", "id-child": "agent:main:subagent:1", "id-other": "agent:main:cron:1"}
SPAWNED_BY = {"agent:main:subagent:1": "agent:main:subagent:2", "agent:main:subagent:2": "agent:main:email:boat"}


async def resolves(request: Request) -> None:
    key = IDS.get(request.params["sessionId"])
    assert request.params["allowMissing"] is True
    await request.reply(**({"ok": True, "key": key} if key else {"ok": False}))


async def describes(request: Request) -> None:
    await request.reply(session={"spawnedBy": SPAWNED_BY.get(request.params["key"])})


async def test_a_model_calls_session_is_asked_for_once(workspace: Path) -> None:
    running = ["email:other", "email:Boat"]
    rig = gateway(workspace, agent=answers, sessions_resolve=resolves, sessions_describe=describes)
    async with rig as (server, client):
        assert await client.session_of("id-boat:0", running) == ""  # nobody has asked it anything yet
        await client.answer(turn(), False, "")
        for _ in range(2):
            assert await client.session_of("id-boat:0", running) == "email:Boat"
            assert await client.session_of("id-child:3", running) == "email:Boat"  # a sub-agent's, of a sub-agent
        assert len(server.asked("sessions.resolve")) == 2 and len(server.asked("sessions.describe")) == 2
        assert await client.session_of("id-boat:0", ["email:other"]) == ""
        for said in ("", "id-other", "nobody's", ":0", "x" * 1000):
            assert await client.session_of(said, running) == ""


async def test_a_gateway_that_does_not_say_whose_call_it_is_holds_up_none(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Request) -> None:
        await asyncio.Event().wait()

    async def refuses(request: Request) -> None:
        await request.refuse("INVALID_REQUEST", "unknown method: sessions.resolve")

    async def circles(request: Request) -> None:
        await request.reply(session={"spawnedBy": request.params["key"]})

    monkeypatch.setattr(gateway_sessions, "ASK_SECONDS_MAX", 0.05)
    for asked, described in ((never, describes), (refuses, describes), (resolves, never), (resolves, circles)):
        rig = gateway(workspace, agent=answers, sessions_resolve=asked, sessions_describe=described)
        async with rig as (_, client):
            await client.answer(turn(), False, "")
            assert await client.session_of("id-child:0", ["email:boat"]) == ""


@pytest.mark.parametrize("text", ["NO_REPLY", "**NO_REPLY**", "HEARTBEAT_OK.", "`NO_REPLY`\n\nNO_REPLY"])
async def test_a_marker_of_silence_is_silence_and_no_failure(workspace: Path, text: str) -> None:
    async with gateway(workspace, agent=lambda request: answers(request, text)) as (_, client):
        result = await client.answer(turn(), False, "")

    assert (result.outcome, result.text, result.failure) == (TurnOutcome.SILENT, "", Failure(FailureId.SILENT))


@pytest.mark.parametrize("said_so", [{"terminalReplyKind": "silent-empty"}, {"finalAssistantRawText": " NO_REPLY\n"}])
async def test_a_silence_that_openclaw_took_the_marker_off_is_one(workspace: Path, said_so: dict[str, str]) -> None:
    async def silent(request: Request) -> None:
        await request.reply(status="accepted")
        await request.reply(status="ok", result={"payloads": [], "meta": {"agentMeta": {}, **said_so}})

    async with gateway(workspace, agent=silent) as (_, client):
        result = await client.answer(turn(), False, "")

    assert (result.outcome, result.failure) == (TurnOutcome.SILENT, Failure(FailureId.SILENT))


async def test_a_marker_under_an_answer_does_not_leave(workspace: Path) -> None:
    async with gateway(workspace, agent=lambda request: answers(request, "It is in place.\n\nNO_REPLY")) as (_, client):
        result = await client.answer(turn(), False, "")

    assert (result.outcome, result.text) == (TurnOutcome.ANSWERED, "It is in place.")


async def test_a_silence_that_stands_in_the_history_is_one(workspace: Path) -> None:
    async def finished(request: Request) -> None:
        await request.reply(**history(question("t1"), said("NO_REPLY")))

    async with gateway(workspace, chat_history=finished) as (server, client):
        result = await client.answer(turn(), True, "")

    assert result.outcome is TurnOutcome.SILENT and not server.asked("agent")


async def test_files_that_could_not_be_attached_are_named_in_the_answer(workspace: Path) -> None:
    (workspace / "out" / "there.txt").write_text("x")
    text = "Here it is.\nMEDIA:./out/gone.pdf\nMEDIA:./out/there.txt\nMEDIA:/etc/passwd\n```\nMEDIA:./shown\n```"
    async with gateway(workspace, agent=lambda request: answers(request, text)) as (_, client):
        result = await client.answer(turn(), False, "")

    assert [one.filename for one in result.attachments] == ["there.txt"]
    assert result.text == (
        "Here it is.\n\n```\nMEDIA:./shown\n```\n\n[Not attached: gone.pdf (it is not there); "
        "passwd (it is outside the workspace). Answer and ask for it again if you need it.]"
    )
    assert "out/gone.pdf" in result.detail


async def test_an_answer_of_nothing_but_a_missing_file_still_says_so(workspace: Path) -> None:
    async with gateway(workspace, agent=lambda request: answers(request, "MEDIA:./out/gone.pdf")) as (_, client):
        result = await client.answer(turn(), False, "")

    assert result.outcome is TurnOutcome.ANSWERED and "gone.pdf (it is not there)" in result.text
