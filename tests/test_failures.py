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
from tinyfat.domain.link import TurnAnswer
from tinyfat.domain.link_json import decode, encode
from tinyfat.domain.turns import TurnOutcome, TurnResult
from tinyfat.ports.mail import DeliveryError, MailError

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


# What takes words to a person: a module that imports one of these, or calls one of TAKERS, makes no sentence itself.
SINKS = {
    "tinyfat.domain.failures", "tinyfat.domain.turns", "tinyfat.domain.usage", "tinyfat.flows.delivery",
    "tinyfat.flows.owner_mail", "tinyfat.ports.mail", "tinyfat.recipes.notice_mail", "tinyfat.recipes.reply_mail",
    "tinyfat.recipes.usage_mail", "tinyfat.recipes.fresh_memory_mail", "tinyfat.box.runtimes.media",
    "tinyfat.box.runtimes.answers", "aiosmtpd",
}  # fmt: skip
OUTSIDE = ("standins/", "cli/")  # the stand-ins of vendors; the operator's own terminal


def _imports(tree: ast.AST) -> set[str]:
    found = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    found |= {f"{n.module}.{name.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for name in n.names}
    return found | {name.name for n in ast.walk(tree) if isinstance(n, ast.Import) for name in n.names}


def _reaches_a_person(tree: ast.AST) -> bool:
    imported = any(name == sink or name.startswith(f"{sink}.") for name in _imports(tree) for sink in SINKS)
    return imported or any(_handed(node) for node in ast.walk(tree))


TAKERS = {"notice_mail", "compose_reply", "failure_reply", "with_note", "ReplyOrder", "Notice"}


def _handed(node: ast.AST) -> list[ast.expr]:
    """What a call hands to one of TAKERS or to OwnerMail.write, whatever the module calls the latter; else nothing."""
    if not isinstance(node, ast.Call):
        return []
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    return given if name in TAKERS or (name == "write" and len(given) == 5) else []


def _modules() -> dict[str, ast.Module]:
    found = {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
    return {path: tree for path, tree in found.items() if not path.startswith(OUTSIDE)}


MODULES = _modules()
MAKERS = [path for path, tree in MODULES.items() if _reaches_a_person(tree) or path.startswith("recipes/")]
_SENTENCE = re.compile(r"\b(?:\w['\w]* ){3}\w['\w]*[.!](?:\s|$|\])")  # the last four words: SQL is long
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


# Good news (the welcome, the question to a new agent), a script, SQL, and what only an operator reads, each by the
# beginning of its text: another sentence in the same module is found.
NOT_BAD_NEWS = {
    "api/inbound.py": ("TinyFat-Rcpt-To and the raw message",),
    "flows/disk_watch.py": ("x, x. `tinyfat disk` shows",),
    "flows/first_words.py": (
        "From: TinyFat\nSubject: Are you there?", "x was destroyed while", "The box of x did not", "x did not answer a",
    ),
    "flows/image_making.py": ("The provider does not list x", "The image x is no good", "The image x was removed"),
    "flows/readiness.py": ("The database commits nothing",),
    "flows/replace.py": ("The state of x could not", "x has no machine", "x was destroyed meanwhile"),
    "ports/ledger.py": ("Agents of x are on machines",),
    "recipes/cloud_init.py": ("#!/bin/sh\n# By cloud-init, once.",),
    "recipes/welcome_mail.py": ("x has its own server and", "Its server: ssh owner@x", "The server may be replaced"),
    "relay/calls.py": ("The model x is not offered on", "This key opens nothing"),
    "store/agents.py": ("There is no agent",),
    "store/budgets.py": ("The agent x has no budget",),
    "store/known_mail.py": ("\nselect known.* from rows",),
    "store/mail.py": ("There is no message x.",),
}  # fmt: skip


def _sentences(path: str, tree: ast.AST) -> list[str]:
    found = [text for text in _texts(tree) if _SENTENCE.search(text)]
    return [text for text in found if not text.startswith(NOT_BAD_NEWS.get(path, ()))]


@pytest.mark.parametrize("path", MAKERS)
def test_no_sentence_of_its_own_leaves(path: str) -> None:
    assert _sentences(path, MODULES[path]) == [], "put the words into domain/failure_kinds.py"


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


def _words_handed_over(tree: ast.AST) -> list[int]:
    """Lines where what writes a mail, or speaks SMTP, is handed words that stand there, with or without a full stop."""
    handed = [one for node in ast.walk(tree) for one in _handed(node)]
    return [one.lineno for one in handed for text in _texts(one) if re.search(r"\w \w", text)]


def test_no_words_are_handed_to_what_writes_mails() -> None:
    assert {path: lines for path, tree in MODULES.items() if (lines := _words_handed_over(tree))} == {}


@pytest.mark.parametrize(
    "smuggled",
    [
        "await self.anything.write(agent, 'x', at, subject, 'All is lost')",
        "await mail.write(agent, 'x', at, subject=f'{name} is broken', text=text)",
        "notice_mail(a, b, c, d, e, text='All is lost')",
        "with_note(text, 'some files are missing')",
    ],
)
def test_words_handed_over_are_found_in_any_module(smuggled: str) -> None:
    assert _words_handed_over(ast.parse(smuggled))


def _subclasses(kind: type[Exception]) -> set[str]:
    return {kind.__name__}.union(*(_subclasses(one) for one in kind.__subclasses__()))


REFUSALS = _subclasses(MailError) - _subclasses(
    DeliveryError
)  # of mail that comes in: their text is the reply to an SMTP peer, or the body of an HTTP answer


def _is_failures_words(node: ast.expr) -> bool:
    """`Failure(...).words()`, `.text()`, or intake's `_not_taken(address, Failure(...))`; a field is no sentence."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name) and node.func.id == "_not_taken":
        made: ast.expr = node.args[1]
    elif isinstance(node.func, ast.Attribute) and node.func.attr in ("words", "text"):
        made = node.func.value
    else:
        return False
    if not (isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and made.func.id == "Failure"):
        return False
    texts = [one.value for one in ast.walk(made) if isinstance(one, ast.Constant)]
    return not any(" " in str(text) for text in texts)


def _own_refusals(tree: ast.AST) -> list[int]:
    """Lines where a refusal of ports/mail is made with other words, or is given another name or a child."""
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "tinyfat.ports.mail"]
    names = {alias.name for n in imported for alias in n.names} & REFUSALS
    wrong = [n.lineno for n in imported for alias in n.names if alias.name in REFUSALS and alias.asname]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "tinyfat.ports":
            wrong += [node.lineno for alias in node.names if alias.name == "mail"]
        if isinstance(node, ast.ClassDef) and names & {base.id for base in node.bases if isinstance(base, ast.Name)}:
            wrong.append(node.lineno)
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names):
            continue
        if node.keywords or len(node.args) != 1 or not _is_failures_words(node.args[0]):
            wrong.append(node.lineno)
    return wrong


def test_what_is_raised_to_a_peer_has_the_words_of_a_failure() -> None:
    assert {path: lines for path, tree in MODULES.items() if (lines := _own_refusals(tree))} == {}


_FROM = "from tinyfat.ports.mail import NoRoom\n"


@pytest.mark.parametrize(
    "smuggled",
    [
        _FROM + "raise NoRoom('No room')",
        _FROM + "raise NoRoom(f'No {x}')",
        _FROM + "why = NoRoom(words)",
        _FROM + "raise NoRoom(Failure(FailureId.MAILBOX_FULL, {'domain': 'send us money'}).text())",
        _FROM + "class Other(NoRoom): ...",
        "from tinyfat.ports.mail import NoRoom as Full\nraise Full('No room')",
        "from tinyfat.ports import mail\nraise mail.NoRoom('No room')",
    ],
)
def test_a_refusal_with_words_of_its_own_is_found(smuggled: str) -> None:
    assert _own_refusals(ast.parse(smuggled))


def test_a_new_module_that_writes_to_a_person_is_looked_at() -> None:
    for line in ("from tinyfat.flows.owner_mail import OwnerMail", "from tinyfat.recipes import notice_mail",
                 "import tinyfat.recipes.reply_mail", "from tinyfat.ports.mail import MailOut",
                 "mail.write(agent, 'x', at, subject, WORDS)"):  # fmt: skip
        assert _reaches_a_person(ast.parse(line)), line


_REPLY = re.compile(r"[245]\d\d[ -]")


def _replies(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in parts:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            found.add(node.value if isinstance(node.value, str) else node.value.decode("latin-1"))
        elif isinstance(node, ast.JoinedStr):
            found.add("".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values))
    return {text.strip() for text in found if _REPLY.match(text)}


def test_smtps_own_replies_are_a_closed_list() -> None:
    said = set().union(*(_replies(MODULES[path]) for path in MODULES if path.startswith("drivers/mail/smtp_")))
    listed = DOC.read_text().partition("## Replies of SMTP itself")[2].partition("\n## ")[0]
    assert said == set(re.findall(r"^- `(.+)`$", listed, re.MULTILINE))
