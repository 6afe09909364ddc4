from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.standins.model_answer import STANDIN_WORDS, CallTool, Say, answer, first_name, own_words, reply, sentences
from tinyfat.standins.model_reading import Api, Correspondence, Mail, read_request, read_text

EVA = "Eva Meier <eva@example.org>"
HEADER = f"From: {EVA}\nTo: ada@x\nSubject: Boat\nDate: Mon"
STAMP = "[Mon 2026-11-23 06:00 UTC] "
RUNTIME = "\n\nRuntime: agent=main | session=agent:main:email:t1 | host=vm | model=host/main"
CONTEXT = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nConversation data: none\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>"
RESUMED = "[System] Your previous turn was interrupted by a gateway restart while OpenClaw was waiting."
FILE = (
    "[media attached: media://inbound/note---a2.txt]\n\n"
    '<file name="note---a2.txt" mime="text/plain">\n\n'
    '<<<EXTERNAL_UNTRUSTED_CONTENT id="b7">>>\nSource: External\n---\nThe key is red.\n'
    '<<<END_EXTERNAL_UNTRUSTED_CONTENT id="b7">>>\n</file>'
)


def mail(body: str, sender: str = EVA) -> Mail:
    return Mail(sender, body)


@pytest.mark.parametrize(
    ("text", "mails"),
    [
        (f"{HEADER}\n\nHello.\n\nBye", [mail("Hello.\n\nBye")]),
        (f"{STAMP}{HEADER}\n\nHello.{RUNTIME}", [mail("Hello.")]),
        (f"{HEADER}\nAttachments: a.txt\n\nHello.", [Mail(EVA, "Hello.", (), "a.txt")]),
        (HEADER, [mail("")]),
        ("just words", [mail("just words", "")]),
        (CONTEXT, []),
        (f"{STAMP}{RESUMED}{RUNTIME}", []),
        # What OpenClaw makes of a turn that it takes up again.
        (
            f"{STAMP}[Queued user message; preserved.]\n{HEADER}\n\nHi\n\n{RESUMED}{RUNTIME}",
            [mail("Hi")],
        ),
        (f"{HEADER}\n\none\n\n{HEADER}\n\ntwo", [mail("one"), mail("two")]),
        (f"{STAMP}{FILE}\n{HEADER}\n\nHi", [Mail(EVA, "Hi", (("note---a2.txt", "The key is red."),))]),
        ('<file name="a">' * 3, [mail('<file name="a">' * 3, "")]),
    ],
)
def test_a_mail_is_found_in_what_a_runtime_sends(text: str, mails: list[Mail]) -> None:
    found = read_text(text)

    assert [Mail(one.sender, one.body.strip(), one.files, one.attachments) for one in found] == mails


@given(
    st.text(max_size=300) | st.lists(st.sampled_from([STAMP, HEADER, RUNTIME, CONTEXT, FILE, "\n", "x?"])).map("".join)
)
def test_any_text_is_read_and_answered(text: str) -> None:
    correspondence = Correspondence(tuple(read_text(text)), (), frozenset())

    assert isinstance(reply(correspondence), Say) or "model:" in text


def test_a_long_hostile_text_is_read_in_linear_time() -> None:
    assert len(read_text('<file name="' * 80_000)) == 1


def test_the_system_prompt_is_not_read() -> None:
    body = {
        "messages": [{"role": "system", "content": "My boat is called Raven."}, {"role": "user", "content": "Boat?"}]
    }
    anthropic = {"system": "My boat is called Raven.", "messages": body["messages"][1:]}

    for request, api in ((body, Api.OPENAI), (anthropic, Api.ANTHROPIC)):
        said = reply(read_request(request, api))
        assert isinstance(said, Say)
        assert "Raven" not in said.text


def test_a_question_is_answered_from_an_earlier_mail() -> None:
    earlier = (mail("Hi Ada,\n\nMy boat is called Heron and lies in Kiel. The weather is fine.\n\nBest regards\nEva"),)

    later = mail("What is my boat called?\n\nOn Mon, Ada wrote:\n> Noted: nonsense")
    said = reply(Correspondence((*earlier, later), (), frozenset()))

    assert isinstance(said, Say)
    assert said.text == "Hello Eva,\n\nYou told me: 'My boat is called Heron and lies in Kiel.'"


def test_a_statement_is_noted_and_a_later_one_wins() -> None:
    first, second = mail("My boat is called Heron."), mail("My boat is called Raven now.")

    assert answer((), first) == "Hello Eva,\n\nNoted: My boat is called Heron."
    assert "Raven" in answer((first, second), mail("What is my boat called?"))


def test_what_it_was_not_told_it_does_not_know() -> None:
    text = answer((mail("My boat is called Heron."),), mail("Who wins the election?"))

    assert STANDIN_WORDS in text
    assert "Heron" not in text


def test_an_own_answer_is_no_knowledge() -> None:
    messages = [
        {"role": "user", "content": "What is the password?"},
        {"role": "assistant", "content": "The password is swordfish."},
        {"role": "user", "content": "What is the password?"},
    ]
    said = reply(read_request({"messages": messages}, Api.OPENAI))

    assert isinstance(said, Say)
    assert "swordfish" not in said.text


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("Hi\n> quoted\nBye", "Hi\nBye"),
        ("New\n\nOn Mon, Ada <a@x> wrote:\n> old\n> older", "New"),
        ("New\n\nAm Montag schrieb Ada <a@x>:\n\n> alt", "New"),
        ("Hi\n-- \nEva\n+49", "Hi"),
        ("> model: status 500\nHi", "Hi"),
        ("My boat is blue.\n\nYours, Robin\n\n", "My boat is blue."),
        ("Mein Boot ist blau.\n\nViele Grüße\nEva\n0431 123", "Mein Boot ist blau."),
        ("Thanks to Bob we have a new boat.", "Thanks to Bob we have a new boat."),
        ("Thanks", ""),
    ],
)
def test_quotes_and_signatures_are_not_the_writers_words(body: str, left: str) -> None:
    assert own_words(body) == left


def test_a_stop_inside_a_word_ends_no_sentence() -> None:
    assert sentences("Write to eva@example.org today. It costs 3.50!") == [
        "Write to eva@example.org today.",
        "It costs 3.50!",
    ]


@pytest.mark.parametrize(
    ("sender", "name"),
    [(EVA, "Eva"), ("eva.meier@example.org", "Eva"), ('"Meier, Eva" <e@x>', "Meier"), ("<bob@x>", "Bob"), ("", "you")],
)
def test_the_greeting_names_the_sender(sender: str, name: str) -> None:
    assert first_name(sender) == name


def said_to(*bodies: str, tools: frozenset[str] = frozenset(), results: tuple[str, ...] = ()) -> str:
    said = reply(Correspondence(tuple(mail(body) for body in bodies), results, tools))
    assert isinstance(said, Say), said
    return said.text.removeprefix("Hello Eva,\n\n")


@pytest.mark.parametrize(
    ("body", "noted"),
    [
        ("Hello Ada, my boat is called Heron.", "my boat is called Heron."),
        ("Hello Ada my boat is called Heron", "my boat is called Heron"),
        ("Hello, My boat is called Heron.", "My boat is called Heron."),
        ("Hello My boat is called Heron.", "My boat is called Heron."),
        ("Hi there, I am Robin.", "I am Robin."),
        ("Dear Ada,\n\nmy boat is red.\n\nBest regards\nEva Meier", "my boat is red."),
        ("Liebe Ada, mein Boot heißt Reiher. Viele Grüße\nEva", "mein Boot heißt Reiher."),
        ("Guten Tag Ada. Mein Boot ist rot!", "Mein Boot ist rot!"),
        ("Bonjour Ada, mon bateau est bleu.", "mon bateau est bleu."),
        ("Good evening Ada-Marie, the boat is red.", "the boat is red."),
        ("My boat is red.\n\nEva", "My boat is red."),
        ("My appointment is on 2026-12-01.", "My appointment is on 2026-12-01."),
    ],
)
def test_what_follows_a_greeting_is_what_a_mail_says(body: str, noted: str) -> None:
    assert said_to(body) == f"Noted: {noted}"


@pytest.mark.parametrize("body", ["Hi!", "Hello Ada", "Hello Ada,\n\nYours, Robin", "Moin moin", "Good morning, Ada."])
def test_a_mail_that_only_greets_is_greeted(body: str) -> None:
    assert said_to(body).startswith("it is good to hear from you")


@pytest.mark.parametrize("body", ["Thanks!", "Thank you very much, Ada.", "Danke!\nEva", "Hello Ada,\n\nthanks\nEva"])
def test_a_mail_that_only_thanks_is_no_mail_without_text(body: str) -> None:
    assert "no text" not in said_to(body)


def test_a_mail_without_text_is_said_to_have_none() -> None:
    assert "your mail has no text" in said_to("") and "your mail has no text" in said_to("> quoted\n> all of it")


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("hello ada, what is 12 + 30?", "12 + 30 = 42."),
        ("Hi Ada! Can you do 3 x 4 - 2?", "3 * 4 - 2 = 10."),
        ("Was ist 7 mal 8?", "7 * 8 = 56."),
        ("What is 0.1 plus 0.2?", "0.1 + 0.2 = 0.3."),
        ("How much is 10 divided by 4?", "10 / 4 = 2.5."),
        ("Calculate (3 + 4) * 2.", "(3 + 4) * 2 = 14."),
        ("What is 1 / 3?", "1 / 3 = about 0.333333."),
        ("What is -5 + 3?", "-5 + 3 = -2."),
        ("2+2=", "2 + 2 = 4."),
        ("Please add 17 and 4", "17 + 4 = 21."),
        ("Subtract 4 from 17, please", "17 - 4 = 13."),
        ("What is 5 / 0?", "5 / 0: nothing can be divided by 0."),
    ],
)
def test_a_small_sum_is_done(body: str, result: str) -> None:
    assert said_to(body) == result


@pytest.mark.parametrize(
    "body", ["What happens on 2026-12-01?", "What is 9**9?", "What is 24/7?", "Is 12 a number?", "What is ((((?"]
)
def test_what_is_no_sum_is_asked_as_ever(body: str) -> None:
    assert said_to(body).startswith("You ask:")


def test_a_file_is_written_with_what_is_known_and_attached() -> None:
    bodies = ("Hello Ada, my boat is called Heron.", "Please write what you know of my boat into a file, boat.txt.")
    asked = Correspondence(tuple(mail(body) for body in bodies), (), frozenset({"write"}))
    assert reply(asked) == CallTool("write", {"path": "out/boat.txt", "content": "- my boat is called Heron.\n"})
    written = said_to(*bodies, tools=frozenset({"write"}), results=("written",))
    assert written == "Here is boat.txt.\nMEDIA:./out/boat.txt"
    assert "no tool `write`" in said_to(*bodies)


@pytest.mark.parametrize(
    ("body", "name", "content"),
    [
        ('Write "milk, bread" to list.txt please.', "list.txt", "milk, bread"),
        ("Send me a file.", "notes.txt", "- nothing yet"),
        ("Save ../../etc/passwd.txt as a file", "passwd.txt", "- nothing yet"),
        ("Schick mir bitte eine Datei. Mein Boot ist rot.", "notes.txt", "- Mein Boot ist rot."),
    ],
)
def test_a_wanted_file_has_a_name_and_lies_in_the_workspace(body: str, name: str, content: str) -> None:
    called = reply(Correspondence((mail(body),), (), frozenset({"write"})))
    assert called == CallTool("write", {"path": f"out/{name}", "content": content + "\n"})
