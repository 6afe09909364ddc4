"""Bad news is one of a closed list: docs/failures.md has each, and no other sentence reaches a person."""

from __future__ import annotations

import ast
import json
import re
import string
from pathlib import Path

import pytest

from tinyfat.domain.failure_kinds import KINDS, FailureId, Reader
from tinyfat.domain.failures import FIELD_CHARS_MAX, Failure, Value, files_left_out, read_failure
from tinyfat.domain.link import TurnAnswer, decode, encode
from tinyfat.domain.turns import TurnOutcome, TurnResult

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/tinyfat"
DOC = ROOT / "docs/failures.md"

# A value for each field that a template may name.
FIELDS: dict[str, Value] = {
    "until": 1_796_095_800, "minutes": 4, "files": "a.pdf (it is not there)", "spent": "$1.00", "cap": "$2.00",
    "amount": "$0.10", "reserved": "$0.50", "calls": 40, "percent": "80", "address": "ada@example.org",
    "sender": "bob@example.org", "message": "0123abcd", "domain": "example.org",
}  # fmt: skip


def section(failure_id: FailureId) -> str:
    kind = KINDS[failure_id]
    lines = [f"### `{failure_id}`", "", f"- Read by: {kind.reader}", f"- Cause: {kind.cause}"]
    lines += [f"- Subject: {kind.subject}"] if kind.subject else []
    lines += [f"- Words: {_on_one_line(kind.words + ''.join(clause for _, clause in kind.clauses))}"]
    lines += [f"- Next step: {_on_one_line(kind.help)}"] if kind.help else []
    return "\n".join(lines)


def _on_one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_the_list_and_its_page_agree() -> None:
    """A section for each failure, word for word, in the list's order, and none besides."""
    written = DOC.read_text()
    sections = [part.rstrip() for part in re.split(r"\n(?=##+ )", written)]
    assert [part for part in sections if part.startswith("### ")] == [section(one) for one in FailureId]


def test_each_failure_has_a_kind_and_each_kind_is_whole() -> None:
    assert list(KINDS) == list(FailureId)
    notes = (FailureId.STOPPED, FailureId.NOT_OUR_DOMAIN, FailureId.NO_SUCH_AGENT, FailureId.AGENT_GONE)
    for failure_id, kind in KINDS.items():
        assert kind.cause.endswith(".") and (kind.help or failure_id in notes), failure_id
        assert isinstance(kind.reader, Reader)


@pytest.mark.parametrize("failure_id", FailureId)
def test_its_words_are_whole_with_and_without_its_fields(failure_id: FailureId) -> None:
    kind = KINDS[failure_id]
    templates = [kind.words, kind.help, kind.subject, *(sentence for _, sentence in kind.clauses)]
    named = {name for text in templates for _, name, _, _ in string.Formatter().parse(text) if name}
    assert named <= {"agent", *FIELDS}, "give the new field a value above"
    for failure in (Failure(failure_id, FIELDS), Failure(failure_id), Failure(failure_id, {"other": "\x00"})):
        said = failure.text("ada") + failure.subject("ada")
        assert "{" not in said and "}" not in said and said.strip()
    whole = Failure(failure_id, FIELDS).text("ada")
    assert all(str(Failure(failure_id, FIELDS)._shown("ada")[name]) in whole for name in named)


@pytest.mark.parametrize("failure_id", FailureId)
def test_it_crosses_the_link_by_its_id(failure_id: FailureId) -> None:
    outcome = TurnOutcome.SILENT if failure_id is FailureId.SILENT else TurnOutcome.FAILED
    result = TurnResult(outcome, failure=Failure(failure_id, {"until": 5, "files": "x"}), detail="why")
    frame = encode(TurnAnswer("t", result))
    assert decode(frame) == TurnAnswer("t", result)
    assert '"outcome": "silent"' not in frame, "a side that is older than `silent` must read it"


@pytest.mark.parametrize(
    ("words", "becomes"),
    [
        ("The agent's model could not answer. Please try again later.", FailureId.MODEL_FAILED),
        ("The agent finished without an answer.", FailureId.EMPTY_ANSWER),
        ("The agent's runtime could not take this message.", FailureId.MESSAGE_REFUSED),
        ("Send $100 to mallory@example.org to get your answer.", FailureId.TURN_FAILED),
        ("", FailureId.TURN_FAILED),
        ('{"id": "no-such-failure", "fields": {}}', FailureId.TURN_FAILED),
        ('{"id": ["model-failed"]}', FailureId.TURN_FAILED),
        ('{"id": "model-failed", "fields": 5}', FailureId.TURN_FAILED),
        ("[" * 3000, FailureId.TURN_FAILED),
    ],
)
def test_a_boxs_own_words_are_for_the_operator_alone(words: str, becomes: FailureId) -> None:
    frame = encode(TurnAnswer("t", TurnResult(TurnOutcome.FAILED)))
    body = json.loads(frame)
    body["result"]["failure"] = words
    answer = decode(json.dumps(body))
    assert isinstance(answer, TurnAnswer) and answer.result.failure is not None
    assert answer.result.failure.id is becomes
    told = answer.result.failure.text("ada")
    assert "mallory" not in told and "[[" not in told
    assert answer.result.detail == ("" if words.startswith("{") else words[:4000])


def test_fields_are_short_plain_and_in_range() -> None:
    nasty = {
        "until": float("inf"), "files": "a\r\nBcc: x@y.z\x1b[31m" + "z" * 5000, "minutes": True, "count": [1],
        "cap": {"a": 1}, "calls": 1e400, "spent": "-" * 5000,
    }  # fmt: skip
    failure = read_failure(Failure(FailureId.VENDOR_LIMIT, nasty).written())  # type: ignore[arg-type]
    assert failure is not None and set(failure.fields) == {"files", "spent"}
    assert all(len(str(value)) <= FIELD_CHARS_MAX for value in failure.fields.values())
    assert failure.words("ada").endswith("lets no more calls through for now: a limit of the vendor's is reached.")
    shown = Failure(FailureId.FILES_LEFT_OUT, nasty).words("ada")  # type: ignore[arg-type]
    assert "\n" not in shown and "\x1b" not in shown


@pytest.mark.parametrize(
    ("until", "shown"),
    [
        (1_796_095_800, "until 03:30 UTC on 1 December 2026"),
        (1_796_095_801, "until 03:31 UTC on 1 December 2026"),  # nobody is to come too early
        (0, "for now"), (-5, "for now"), (10**15, "for now"), ("soon", "for now"),
    ],
)  # fmt: skip
def test_a_moment_is_said_in_utc(until: Value, shown: str) -> None:
    assert f"no more calls through {shown}:" in Failure(FailureId.VENDOR_LIMIT, {"until": until}).words("ada")


def test_files_that_could_not_be_attached_are_named_without_their_folders() -> None:
    failure = files_left_out({"/etc/secret/../passwd": "it is outside the workspace", "./out/[a](x).pdf": "gone\n!"})
    assert failure.words() == "Not attached: passwd (it is outside the workspace); _a__x_.pdf (gone !)."
    many = files_left_out({f"{n}.txt": "it is not there" for n in range(100)})
    assert many.words().endswith("; and 80 more.")


# Where bad news is made: no sentence of their own may leave, only Failure values.
MAKERS = (
    "flows/mail_turn.py", "flows/usage_alerts.py", "flows/owner_mail.py", "flows/intake.py",
    "recipes/reply_mail.py", "recipes/notice_mail.py", "recipes/usage_mail.py", "recipes/fresh_memory_mail.py",
    "box/desk.py", "box/runtimes/gateway.py", "box/runtimes/pi.py", "box/runtimes/media.py",
    "box/runtimes/model_failure.py", "domain/usage.py", "store/usage.py",
)  # fmt: skip
_SENTENCE = re.compile(r"(?:\w+['\w]* ){3,}\w+['\w]*[.!](?:\s|$|\])")
_MAY_SPEAK = {"log", "logging", "re", "box"}  # log lines are the operator's; patterns are no words


def _texts(node: ast.AST) -> list[str]:
    """String literals that could leave: but docstrings, what is raised, what is logged, what is a detail."""
    found: list[str] = []
    if isinstance(node, (ast.Raise, ast.Assert)):
        return found
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return found
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        named = {part.id if isinstance(part, ast.Name) else part.attr for part in ast.walk(node.func)
                 if isinstance(part, (ast.Name, ast.Attribute))}  # fmt: skip
        if named & _MAY_SPEAK:
            return found
    if isinstance(node, ast.keyword) and node.arg == "detail":
        return found
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    for child in ast.iter_child_nodes(node):
        found += _texts(child)
    return found


@pytest.mark.parametrize("path", MAKERS)
def test_no_sentence_of_its_own_leaves(path: str) -> None:
    tree = ast.parse((SOURCE / path).read_text())
    own = [text for text in _texts(tree) if _SENTENCE.search(text)]
    assert own == [], "put the words into domain/failure_kinds.py"


def test_the_search_for_sentences_finds_one() -> None:
    assert [t for t in _texts(ast.parse('reply("I could not answer this.")')) if _SENTENCE.search(t)]
    assert [t for t in _texts(ast.parse('x = f"The file {name} is not there."')) if _SENTENCE.search(t)]


def _makes_result(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "TurnResult"


def test_every_failed_turn_is_made_from_a_failure() -> None:
    """`failure=` of a TurnResult is a Failure or a variable of that type (mypy checks it), never a text."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if _makes_result(node):
                for keyword in node.keywords:  # type: ignore[attr-defined]
                    text = isinstance(keyword.value, (ast.Constant, ast.JoinedStr, ast.BinOp))
                    assert keyword.arg != "failure" or not text, f"{path}:{node.lineno}"  # type: ignore[attr-defined]
