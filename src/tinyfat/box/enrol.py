"""`python -m tinyfat.box.enrol`: this machine says who it is, learns who it is to be, and becomes it. As root.

Run once a boot, and whenever the box asks for it. Each run fetches the identity; a machine that the control plane does
not know yet enrols first. What only a machine that becomes an image needs is imported there: an agent waits for this
program. Exit codes: 0 done; 1 it is worth trying again; 78 it is not (EX_CONFIG of sysexits(3)).
"""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tinyfat.box.become import BecomeFailed, Machine, become
from tinyfat.box.private_file import write_private
from tinyfat.domain.enrolment import (
    BODY_BYTES_MAX,
    COMPLAINT_CHARS_MAX,
    CONTROL_CA_FILE,
    ENROL_FILE,
    ENROL_PATH,
    IDENTITY_PATH,
    IDENTITY_WANTED,
    KEY_BYTES,
    MACHINE_KEY_FILE,
    EnrolmentRefused,
    Identity,
    Outcome,
    key_hash,
    read_identity,
)

REQUEST_SECONDS_MAX = 30.0
EXIT_AGAIN = 1
EXIT_REFUSED = 78
_UNKNOWN_KEY = 401
_FINAL = (403, 409)


class Refused(Exception):
    """The control plane refuses this machine; trying again changes nothing."""


class Away(Exception):
    """The control plane does not answer as it should; trying again may help."""


@dataclass(frozen=True, slots=True)
class Order:
    """enrol.json, as user-data brought it."""

    control_url: str
    machine_id: str
    token: str = field(repr=False)


Ask = Callable[[str, "dict[str, str]", "bytes | None"], "tuple[int, bytes]"]


def main(machine: Machine) -> int:
    _taken_away(machine.path(IDENTITY_WANTED))  # before the fetch: what is asked during it is asked anew
    try:
        order, authority = read_order(machine.path(ENROL_FILE)), _authority(machine)
        key, ask = machine_key(machine, order), asking(authority)
        identity = identity_of(order, key, ask)
        if identity.sealed:
            from tinyfat.box.seal import seal

            seal(machine)
            return _say(0, "this machine is sealed; its power goes")
        try:
            if identity.runtime_sha256:
                from tinyfat.box.baked import bring
                from tinyfat.box.site import install

                bring(machine, order.control_url, key, identity.runtime_sha256, authority)
                install(machine)  # of Caddy, which an image is to have
            become(machine, identity, authority)
        except BecomeFailed as error:
            with suppress(Away):  # the complaint is what it ends with, and it is made again
                report(order, key, ask, Outcome(identity.serial, str(error)))
            raise
        report(order, key, ask, Outcome(identity.serial))
    except Refused as error:
        return _say(EXIT_REFUSED, str(error))
    except (Away, BecomeFailed, EnrolmentRefused, OSError) as error:
        return _say(EXIT_AGAIN, f"{error}; it is tried again")
    return _say(0, f"this machine is {identity.hostname} (identity {identity.serial})")


def read_order(file: Path) -> Order:
    """Raises Refused."""
    try:
        said = json.loads(file.read_text("utf-8"))
        return Order(str(said["control_url"]), str(said["machine_id"]), str(said["enrolment_token"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{file} is not what user-data writes ({type(error).__name__}); make the machine anew") from error


def machine_key(machine: Machine, order: Order) -> str:
    """Made once for a machine and on its disk before anybody hears of it: an answer that was lost is asked for again by
    the same key. A copy of another machine's disk makes its own."""
    file = machine.path(MACHINE_KEY_FILE)
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(file.read_text("utf-8"))
        if known["machine_id"] == order.machine_id:
            return str(known["key"])
    key = secrets.token_hex(KEY_BYTES)
    write_private(file, json.dumps({"machine_id": order.machine_id, "key": key}))
    return key


def identity_of(order: Order, key: str, ask: Ask) -> Identity:
    """Raises Refused, Away, EnrolmentRefused."""
    status, body = _identity(order, key, ask)
    if status == _UNKNOWN_KEY:
        _enrol(order, key, ask)
        status, body = _identity(order, key, ask)
    if status != 200:
        raise Away(f"{order.control_url}{IDENTITY_PATH} answered {status}{_words(body)}")
    identity = read_identity(body)
    if identity.machine_id != order.machine_id:
        raise Away(f"{order.control_url} sent the identity of another machine")
    return identity


def report(order: Order, key: str, ask: Ask, outcome: Outcome) -> None:
    """Nobody but this program knows what it could not do. Raises Away."""
    words = "".join(letter if letter.isprintable() else " " for letter in outcome.complaint)
    said = {"serial": outcome.serial, "complaint": words[:COMPLAINT_CHARS_MAX]}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    status, body = ask(order.control_url + IDENTITY_PATH, headers, json.dumps(said, ensure_ascii=False).encode())
    if status != 200:
        raise Away(f"{order.control_url}{IDENTITY_PATH} answered {status}{_words(body)}")


def _identity(order: Order, key: str, ask: Ask) -> tuple[int, bytes]:
    return ask(order.control_url + IDENTITY_PATH, {"Authorization": f"Bearer {key}"}, None)


def _enrol(order: Order, key: str, ask: Ask) -> None:
    said = {"machine_id": order.machine_id, "token": order.token, "key_hash": key_hash(key).hex()}
    headers = {"Content-Type": "application/json"}
    status, body = ask(order.control_url + ENROL_PATH, headers, json.dumps(said).encode())
    if status in _FINAL:
        raise Refused(f"{order.control_url} refuses this machine{_words(body)}")
    if status != 200:
        raise Away(f"{order.control_url}{ENROL_PATH} answered {status}{_words(body)}")


def asking(authority: str) -> Ask:
    """Over TLS that `authority` (PEM; "": the system's) vouches for. Redirects are not followed: the token and the key
    are for one address. The function raises Away."""
    context = ssl.create_default_context(cadata=authority or None)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect)

    def ask(url: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
        if not url.startswith("https://"):
            raise Away(f"{url} is not an https address")
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - https alone, see above
        try:
            with opener.open(request, timeout=REQUEST_SECONDS_MAX) as answer:
                return answer.status, answer.read(BODY_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(BODY_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise Away(f"{url} does not answer ({type(error).__name__}: {error})") from error

    return ask


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **named: object) -> None:
        return None


def _authority(machine: Machine) -> str:
    file = machine.path(CONTROL_CA_FILE)
    return file.read_text("ascii").strip() if file.exists() else ""


def _taken_away(file: Path) -> None:
    """Its folder is the box's, which may have put anything there; by this path root writes nothing."""
    with suppress(FileNotFoundError):
        try:
            file.unlink()
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(file, ignore_errors=True)


def _words(body: bytes) -> str:
    """What the answer says, for a person."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {error[:500]}" if isinstance(error, str) and error.isprintable() else ""


def _say(code: int, words: str) -> int:
    print(f"tinyfat: {words}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(Machine()))
