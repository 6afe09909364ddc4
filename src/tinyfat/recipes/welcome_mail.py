"""The first mail an owner gets: their agent is there, and how to use it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WelcomeFacts:
    agent: str  # its name
    address: str  # where mail for it goes
    owner: str
    host: str  # what SSH calls its server; "": it has no server of its own
    host_key: str  # fingerprint of the server's SSH host key
    owner_keys: int  # how many SSH keys of the owner's it has
    site: str  # the name of the site it can have; "": nobody serves our names


def welcome_subject(agent: str) -> str:
    return f"{agent} is ready"


def welcome_text(facts: WelcomeFacts) -> str:
    return "\n\n".join(
        part for part in (_mail(facts), _people(facts), _server(facts), _site(facts), _end(facts)) if part
    )


def _mail(facts: WelcomeFacts) -> str:
    return (
        f"{facts.agent} has its own server and has answered a first question.\n"
        f"Write to {facts.address}: it answers by mail. A reply keeps the conversation; a new mail begins another one."
    )


def _people(facts: WelcomeFacts) -> str:
    return (
        f"It answers you ({facts.owner}) and nobody else. Whoever runs this TinyFat lets others in:\n"
        f"    tinyfat agent allow {facts.agent} friend@example.org\n"
        f"    tinyfat agent deny {facts.agent} friend@example.org"
    )


def _server(facts: WelcomeFacts) -> str:
    if not facts.host:
        return ""
    opens = (
        f"Your {'key opens' if facts.owner_keys == 1 else f'{facts.owner_keys} keys open'} it."
        if facts.owner_keys
        else f"It has no key of yours yet: tinyfat agent keys add {facts.agent} ~/.ssh/id_ed25519.pub"
    )
    return (
        f"Its server: ssh owner@{facts.host}\n{opens} There are no passwords.\n"
        f"When SSH asks, the server's key is {facts.host_key} (ED25519). If it ever shows another one, do not go on."
    )


def _site(facts: WelcomeFacts) -> str:
    if not facts.site:
        return ""
    return (
        f"It can have a web site: whatever lies in the folder `public` of its workspace, shown to the whole world at\n"
        f"https://{facts.site}/ once whoever runs this TinyFat says so; until then nobody sees it:\n"
        f"    tinyfat agent publish {facts.agent}\n"
        f"    tinyfat agent unpublish {facts.agent}"
    )


def _end(facts: WelcomeFacts) -> str:
    return (
        "The server may be replaced one day by another one: name, address, key and memory stay the same. Were the "
        "memory ever lost with a server, you would be told."
    )
