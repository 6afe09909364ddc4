"""Small mails after public bug reports of helpdesks and mail libraries, each with how it is to be read."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tinyfat.domain.mail.automatic import role_reason
from tinyfat.domain.mail.message import Mail, read_mail

FOLDER = Path(__file__).parent / "mail_cases"


@cache
def case(name: str) -> Mail:
    return read_mail((FOLDER / f"{name}.eml").read_bytes())


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("auto-*.eml")))
def test_automatic_mail(name: str) -> None:
    assert bool(case(name).automatic) is (name != "auto-x-auto-response-suppress-all-human")


def test_an_invitations_answer_is_automatic() -> None:
    assert case("invite-response-accepted").automatic


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("role-*.eml")))
def test_roles(name: str) -> None:
    assert bool(role_reason(case(name).from_address)) is ("human" not in name)
    assert case(name).automatic == ""
