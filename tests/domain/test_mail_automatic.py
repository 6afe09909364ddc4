"""By what a machine's mail is known, and what of people's mail looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.domain.test_mail_cases import case
from tinyfat.domain.mail.automatic import role_reason
from tinyfat.domain.mail.automatic_marks import MARKS, ROLES, SUBJECTS
from tinyfat.domain.mail.judgement import came_back, gave_up
from tinyfat.domain.mail.message import Mail, read_mail

DOCUMENT = Path(__file__).parents[2] / "docs" / "automatic-mail.md"


def mail(*fields: str, body: str = "I am away until Monday.", sender: str = "you@example.org") -> Mail:
    head = [f"From: {sender}", "To: ada@t.org", "Message-ID: <1@example.org>", *fields]
    return read_mail("\r\n".join([*head, "", body]).encode())


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: f"{mark.field} {' '.join(mark.values)}")
def test_every_mark_is_one(mark) -> None:  # type: ignore[no-untyped-def]
    name = mark.field.replace("*", "Post")
    for value in mark.values or ("yes", "anything at all"):
        found = mail(f"{name}: {value}")
        assert found.automatic
    if not mark.values and not name.startswith("List-"):
        assert mail(f"{name}: no").automatic == ""


@pytest.mark.parametrize("phrase", sorted({one for all_of in SUBJECTS.values() for one in all_of}))
def test_every_subject_is_known_and_anchored(phrase: str) -> None:
    for subject in (
        f"{phrase}: A question",
        f"{phrase.upper()}: x",
        phrase.capitalize(),
        f"[{phrase}] x",
        f"{phrase} - x",
    ):
        assert mail(f"Subject: {subject}").responder, subject
    for subject in (f"Re: {phrase}: A question", f"A word on {phrase}", f"{phrase}s are a nuisance?", f"Fwd: {phrase}"):
        assert mail(f"Subject: {subject}").automatic == "", subject


@pytest.mark.parametrize(
    "fields",
    [
        "Subject: Automatic reply settings?",
        "Subject: Re: Automatic reply: A question",
        "Subject: Out of office next week, who covers?",
        "Subject: Automobile: which one",
        "Feedback-ID: i559146b5:Fastmail",
        "X-Auto-Response-Suppress: All",
        "Precedence: first-class",
        "Precedence: special-delivery",
        "X-Priority: 1",
        "X-Mailer: Microsoft Outlook 16.0",
        "Return-Path: <you@example.org>",
        "Delivered-To: ada@t.org",
        "X-Apple-Action: JUNK/DEFAULT",
        "Auto-Submitted: no",
        "Content-Type: text/calendar; method=REQUEST",
    ],
)
def test_peoples_mail(fields: str) -> None:
    assert mail(fields).automatic == ""


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Type: text/calendar; method=REPLY",
        'Content-Type: text/calendar; charset="utf-8"; method="reply"',
        "Content-Type: multipart/report; report-type=disposition-notification; boundary=x",
    ],
)
def test_answers_to_invitations_and_receipts(fields: str) -> None:
    assert mail(fields).automatic


def test_an_invitations_answer_by_its_content() -> None:
    body = "BEGIN:VCALENDAR\r\nMETHOD:REPLY\r\nEND:VCALENDAR\r\n"
    assert mail("Content-Type: text/calendar", body=body).automatic
    assert mail("Content-Type: text/calendar", body=body.replace("REPLY", "REQUEST")).automatic == ""


@pytest.mark.parametrize(
    "local",
    [
        *(
            "mailer-daemon",
            "mailer_daemon",
            "mailer.daemon",
            "mailerdaemon",
            "post_master",
            "post-master",
            "postmaster",
        ),
        *("no-reply", "noreply", "no_reply", "no.reply", "noreply42", "noreply+tag", "pat-noreply", "orders.no-reply"),
        *("do-not-reply", "donotreply", "do_not_reply", "dontreply", "shop-donotreply", "never-reply", "no-reply-shop"),
        *("bounce", "bounces", "bounce-12", "bounces+x", "list-bounces", "msprvs1=abc-bounces", "ne-pas-repondre"),
        *("microsoftexchange329e71ec88ae4615bbc36ab6ce41109e", "autoreply", "auto-responder"),
    ],
)
def test_roles(local: str) -> None:
    assert role_reason(f"{local}@example.org")


@pytest.mark.parametrize(
    "local",
    [
        *("owner-anna", "pull-request", "list-owner", "request", "reply", "casinoreply", "norbert", "nora.reply"),
        *("noah", "donna", "bouncer", "mailer", "post", "master", "replies", "autor", "systems", "root", "admin"),
    ],
)
def test_people_and_what_may_be_one(local: str) -> None:
    assert role_reason(f"{local}@example.org") == ""


def test_the_document_is_this_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    marks = [f"| `{m.field}` | {', '.join(m.values) or 'anything'} | {m.kind} | {m.source} |" for m in MARKS]
    subjects = [f"| {language} | {', '.join(phrases)} |" for language, phrases in SUBJECTS.items()]
    assert [row for row in rows if row.startswith("| `")] == marks
    assert [row for row in rows if row in subjects] == subjects
    assert ", ".join(f"`{role}`" for role in ROLES) in text


class TestWhatCameBack:
    @pytest.mark.parametrize("name", ["dsn-as-mixed-from-mailer", "dsn-no-status-part", "dsn-unfolded-diagnostic"])
    def test_the_cases_are_bounces(self, name: str) -> None:
        assert came_back(case(name), "")
        assert gave_up(case(name))

    def test_the_unfolded_diagnostic_does_not_hide_the_recipient(self) -> None:
        report = case("dsn-unfolded-diagnostic").report
        assert report is not None
        assert (report.recipient, report.action, report.status) == ("you@example.org", "failed", "5.1.1")

    @pytest.mark.parametrize("fields", [(), ("Auto-Submitted: auto-replied",), ("X-Failed-Recipients: a@b.c",)])
    def test_the_null_path_and_a_mail_system_are_enough(self, fields: tuple[str, ...]) -> None:
        bounce = mail(*fields, "Subject: Undelivered Mail", body="No such user.", sender="mailer-daemon@mx.example.net")
        assert came_back(bounce, "")
        assert gave_up(bounce)

    def test_a_bounce_that_calls_itself_nothing(self) -> None:
        assert came_back(mail("Subject: failure notice", body="Sorry.", sender="system@mx.example.net"), "")

    def test_an_absence_note_is_no_bounce(self) -> None:
        for fields in ("Auto-Submitted: auto-replied (vacation)", "Subject: Auto: A question", "X-Autoreply: yes"):
            assert not came_back(mail(fields), "")
        assert not came_back(mail(), "you@example.org")

    @pytest.mark.parametrize(
        ("subject", "body"),
        [
            ("Delivery delayed: A question", "x"),
            ("Warning: message 1abc delayed 24 hours", "x"),
            ("Delivery Status Notification (Delay)", "x"),
            ("Delivered: A question", "x"),
            ("Relayed: A question", "x"),
            ("Delayed Mail (still being retried)", "x"),
            ("Undelivered Mail", "THIS IS A WARNING ONLY. It will be retried until it is 5 days old."),
        ],
    )
    def test_a_delay_or_a_delivery_is_not_given_up(self, subject: str, body: str) -> None:
        assert not gave_up(mail(f"Subject: {subject}", body=body, sender="mailer-daemon@x.org"))

    @pytest.mark.parametrize(
        ("action", "status", "gone"),
        [
            ("failed", "5.1.1", True),
            ("Failed (really)", "", True),
            ("delayed", "4.4.1", False),
            ("relayed", "2.0.0", False),
            ("expanded", "", False),
            ("", "5.7.1", True),
            ("", "4.2.2", False),
        ],
    )
    def test_a_report_says_it(self, action: str, status: str, gone: bool) -> None:
        body = (
            f"--r\r\n\r\nWords.\r\n--r\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n"
            f"Final-Recipient: rfc822; a@b.c\r\nAction: {action}\r\nStatus: {status}\r\n--r--\r\n"
        )
        for shape in ("multipart/report; report-type=delivery-status", "multipart/mixed"):
            report = mail(f"Content-Type: {shape}; boundary=r", body=body, sender="mailer-daemon@x.org")
            assert gave_up(report) is gone


@pytest.mark.parametrize(
    "fields",
    [
        *("X-Zoho-AutoReply: yes", "X-AutoReply-From: x@y.org", "X-Autoreplied: yes", "X-Yahoo-Auto-Responder: 1"),
        *("X-Mail-Autoresponse: 1", "X-Qmail-Autoresponder: 1", "X-Auto-Answer: yes", "X-Holiday-Reply: yes"),
        *("X-MailEnable_Vacation: 1", "X-Vacation-Responder: x", "X-FC-MachineGenerated: true", "X-Out-Of-Office: 1"),
        *("X-Auto-Generated: yes", "X-Discourse-Auto-Generated: marked", "X-Autosubmitted: auto-replied"),
        *("Auto-Submitted: (by a rule) auto-replied", "Auto-Submitted: no\r\nAuto-Submitted: auto-replied"),
        *("Precedence: auto", "Precedence: vacation", "Preference: auto_reply", "X-Mailer: vacation 1.2.7"),
        *("X-Loop: autoresponder@example.org", "X-Amazon-Mail-Relay-Type: notification", "X-ML-Name: boats"),
        *("Return-Path: < >", "Return-Path: <MAILER-DAEMON>", "Return-Path: MAILER-DAEMON (x)"),
        *("Content-Type: message/delivery-status", "Content-Type: message/feedback-report"),
        *("Subject: [EXTERNAL] Automatic reply: Lunch", "Subject: [EXT] Automatische Antwort: x"),
        *("Subject: *** SPAM *** Out of office", "Subject: =?utf-8?q?Re=CC=81ponse_automatique_=3A?= x"),
        *(
            "Subject: Resposta automàtica: x",
            "Subject: پاسخ خودکار: x",
            "Subject: 【自動返信】 x",
            "Subject: 부재 중: x",
        ),
    ],
)
def test_marks_near_those_that_are_listed(fields: str) -> None:
    assert mail(fields).automatic


@pytest.mark.parametrize(
    "fields",
    [
        # Passed on by a rule of the owner's: procmail, Kerio.
        "X-Loop: you@example.org\r\nResent-From: you@example.org",
        "X-Loop: pat@procmail.example.org",
        "X-MS-Exchange-Organization-AutoForwarded: true",
        "X-Auto-Response-Suppress: OOF, AutoReply",
        "X-Mailer: Automatic Mailing 2",
        "Content-Type: text/calendar; method=COUNTER",
        "Subject: Vacation: where to?",
        "Subject: [EXTERNAL] Lunch",
        "Subject: [boats] Automatic reply settings",
        "Subject: Abwesenheit im Mai",
        "Listing-Id: 4711",
        "X-Auto: a car",
    ],
)
def test_marks_near_them_that_are_none(fields: str) -> None:
    assert mail(fields).automatic == ""


@pytest.mark.parametrize(
    "local",
    [
        *("pat+noreply", "no-responda", "nao-responder", "nie-odpowiadac", "niet-beantwoorden", "inte.svara"),
        *("mail_delivery_system", "not-reply", "dev-null", "ei-vastausta", "auto-confirm", "do-not-answer"),
    ],
)
def test_roles_in_other_words(local: str) -> None:
    assert role_reason(f"{local}@example.org")
