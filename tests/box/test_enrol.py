"""A machine that knows nothing enrols with a control plane over real TLS and becomes what that says."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.box.enrolling import MACHINE_ID, OWNER_KEY, SECRET, Commands, ControlPlane, identity, machine, own_site
from tinyfat.box import fetch_box
from tinyfat.box.become import Machine
from tinyfat.box.enrol import EXIT_AGAIN, EXIT_REFUSED, main
from tinyfat.box.folder import BoxFolder
from tinyfat.box.site import CADDY, caddyfile
from tinyfat.domain.enrolment import (
    BOX_STATE_FOLDER,
    HOST_KEY_FILE,
    IDENTITY_FILE,
    IDENTITY_TIMER_FILE,
    IDENTITY_WANTED,
    INPUT_RULES_FILE,
    MACHINE_KEY_FILE,
    PUBLIC_FOLDER,
    SITE_FOLDER,
    Outcome,
    SiteTls,
    key_hash,
)
from tinyfat.drivers.authorities.archive import box_archive
from tinyfat.drivers.authorities.sites import SiteAuthority
from tinyfat.drivers.authorities.tls import TlsAuthority

Make = Callable[..., Machine]


@pytest.fixture(scope="module")
def archive() -> bytes:
    return box_archive().data


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, archive: bytes) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("tls"), {hashlib.sha256(archive).hexdigest(): archive}) as made:
        yield made


@pytest.fixture
def plane(serving: ControlPlane) -> ControlPlane:
    serving.ledger.forget()
    return serving


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def new(tmp_path: Path, plane: ControlPlane, commands: Commands) -> Make:
    def make(name: str = "m1", authority: str = plane.authority.pem, **changes: str) -> Machine:
        return machine(tmp_path / name, commands, plane.url, authority, **changes)

    return make


def key_of(made: Machine) -> str:
    return str(json.loads(made.path(MACHINE_KEY_FILE).read_text())["key"])


def box_json(made: Machine) -> dict[str, object]:
    body: dict[str, object] = json.loads(made.path(f"{BOX_STATE_FOLDER}/box.json").read_text())
    return body


def test_it_enrols_once_and_becomes_the_agents_machine(plane: ControlPlane, new: Make, commands: Commands) -> None:
    made = new()

    assert main(made) == 0

    assert plane.ledger.key == key_hash(key_of(made))
    assert plane.ledger.fetches == [1]
    assert made.path("/etc/hostname").read_text() == "ada\n"
    assert "127.0.1.1 ada.agents.example.org ada\n" in made.path("/etc/hosts").read_text()
    assert made.path(HOST_KEY_FILE).read_text() == plane.ledger.identity.ssh_host_key
    assert made.path("/etc/ssh/tinyfat/keys/owner").read_text() == OWNER_KEY + "\n"
    assert made.path("/etc/ssh/tinyfat/principals/operator").read_text() == f"machine-{MACHINE_ID}\n"
    assert made.path(INPUT_RULES_FILE).read_text().count("dport 22 accept") == 2
    assert box_json(made)["link_token"] == "link-token"
    assert box_json(made)["link_ca"] == plane.authority.pem.strip()
    assert commands.taken() == [
        "hostname ada",
        "systemctl try-reload-or-restart ssh.service",
        "nft -f /etc/nftables.conf",
        "systemctl start tinyfat-box.service",
    ]


def test_secrets_on_its_disk_are_for_root_or_the_box_alone(new: Make) -> None:
    made = new()
    main(made)

    for path in (MACHINE_KEY_FILE, HOST_KEY_FILE, f"{BOX_STATE_FOLDER}/box.json", IDENTITY_FILE):
        assert stat.S_IMODE(made.path(path).stat().st_mode) == 0o600, path
    assert "link-token" not in made.path(IDENTITY_FILE).read_text()


def test_the_box_reads_what_root_wrote(new: Make) -> None:
    made = new()
    main(made)

    read = BoxFolder(made.path(BOX_STATE_FOLDER)).identity()

    assert (read.machine_id, read.agent_name, read.serial) == (MACHINE_ID, "ada", 1)
    assert str(read.identity_wanted) == IDENTITY_WANTED


def test_a_machine_of_the_warm_pool_has_a_box_before_it_has_an_agent(plane: ControlPlane, new: Make) -> None:
    plane.ledger.identity = identity(agent_name="", owner_keys=(), hostname="pool-1.agents.example.org")
    made = new()

    assert main(made) == 0
    assert BoxFolder(made.path(BOX_STATE_FOLDER)).identity().agent_name == ""


def test_again_changes_nothing_and_disturbs_nobody(new: Make, commands: Commands) -> None:
    made = new()
    main(made)
    commands.taken()

    assert main(made) == 0
    assert commands.taken() == ["systemctl start tinyfat-box.service"]


def test_a_claim_changes_name_and_keys_and_leaves_the_box_running(
    plane: ControlPlane, new: Make, commands: Commands
) -> None:
    plane.ledger.identity = identity(agent_name="", owner_keys=(), hostname="pool-1.agents.example.org")
    made = new()
    main(made)
    commands.taken()
    plane.ledger.identity = identity(serial=2)

    assert main(made) == 0

    assert "hostname ada" in commands.ran
    assert commands.ran[-1] == "systemctl start tinyfat-box.service"
    assert box_json(made)["agent_name"] == "ada"
    assert box_json(made)["identity_serial"] == 2


def test_another_link_restarts_the_box(plane: ControlPlane, new: Make, commands: Commands) -> None:
    made = new()
    main(made)
    plane.ledger.identity = identity(serial=2, link_token="another")

    main(made)

    assert commands.ran[-1] == "systemctl restart tinyfat-box.service"


def test_a_removed_key_is_gone_from_the_machine(plane: ControlPlane, new: Make) -> None:
    made = new()
    main(made)
    plane.ledger.identity = identity(serial=2, owner_keys=())

    main(made)

    assert made.path("/etc/ssh/tinyfat/keys/owner").read_text() == ""


def test_what_could_not_be_put_in_force_is_tried_again(plane: ControlPlane, new: Make, commands: Commands) -> None:
    """The file is there after the first try; that it was written does not mean that it counts."""
    made = new()
    commands.failing = "nft"
    assert main(made) == EXIT_AGAIN
    assert commands.taken()[-1] == "systemctl start tinyfat-box.service"  # the agent need not wait for it
    assert not made.path(IDENTITY_FILE).exists()

    commands.failing = ""
    assert main(made) == 0
    assert "nft -f /etc/nftables.conf" in commands.ran


def test_a_lost_answer_is_asked_for_again_with_the_same_key(plane: ControlPlane, new: Make) -> None:
    """The ledger knew the key already when the connection broke, and the ten minutes have passed."""
    made = new()
    plane.ledger.away = True
    assert main(made) == EXIT_AGAIN
    plane.ledger.away = False
    plane.ledger.key = key_hash(key_of(made))
    plane.ledger.token_valid = False

    assert main(made) == 0


def test_a_token_whose_time_is_over_opens_nothing(
    plane: ControlPlane, new: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.ledger.token_valid = False
    made = new()

    assert main(made) == EXIT_REFUSED
    assert "ten minutes are over" in capsys.readouterr().err
    assert not made.path(f"{BOX_STATE_FOLDER}/box.json").exists()


def test_whoever_read_the_token_later_is_refused_and_the_operator_told(plane: ControlPlane, new: Make) -> None:
    main(new("m1"))

    assert main(new("thief")) == EXIT_REFUSED
    assert "another key" in plane.ledger.doubts[0]


def test_a_copy_of_a_disk_is_another_machine(plane: ControlPlane, new: Make) -> None:
    """A clone of a booted machine has that one's key on it, and its own order."""
    made = new()
    main(made)
    before = key_of(made)
    new(machine_id="3f1f0f5e-0000-4000-8000-000000000002")

    assert main(made) == EXIT_REFUSED  # this ledger knows the first alone
    assert key_of(made) != before


def test_only_the_pinned_authority_vouches_for_the_control_plane(
    plane: ControlPlane, new: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made = new(authority=TlsAuthority(b"another home".ljust(32)).pem)

    assert main(made) == EXIT_AGAIN
    assert "certificate verify failed" in capsys.readouterr().err
    assert plane.ledger.key is None


def test_the_request_of_the_box_is_taken_away_whatever_it_is(new: Make) -> None:
    made = new()
    made.path(IDENTITY_WANTED).mkdir()
    (made.path(IDENTITY_WANTED) / "full").touch()

    assert main(made) == 0
    assert not made.path(IDENTITY_WANTED).exists()


def test_a_link_in_its_place_leads_root_nowhere(new: Make, tmp_path: Path) -> None:
    made = new()
    precious = tmp_path / "precious"
    precious.write_text("kept")
    made.path(IDENTITY_WANTED).symlink_to(precious)

    assert main(made) == 0
    assert precious.read_text() == "kept"


def with_caddy(made: Machine) -> Machine:
    made.path(CADDY).parent.mkdir(parents=True)
    made.path(CADDY).touch()
    return made


def test_what_is_published_is_served_and_no_more_when_it_is_not(
    plane: ControlPlane, new: Make, commands: Commands
) -> None:
    made = with_caddy(new())
    plane.ledger.identity = identity(site=own_site())
    assert main(made) == 0
    text = made.path(f"{SITE_FOLDER}/Caddyfile").read_text()
    assert "https://ada.agents.example.org {" in text and "root * /run/tinyfat/site/box/workspace/public\n" in text
    assert "proxy" not in text
    assert "tcp dport 443 accept" in made.path(INPUT_RULES_FILE).read_text()
    assert made.path(PUBLIC_FOLDER).is_dir()
    for path in (SITE_FOLDER, *(f"{SITE_FOLDER}/{name}" for name in ("Caddyfile", "site.pem", "site.key"))):
        assert stat.S_IMODE(made.path(path).stat().st_mode) & 0o077 == 0, path
    assert made.path(f"{SITE_FOLDER}/site.key").read_text() == own_site().key
    assert "systemctl reload-or-restart tinyfat-site.service" in commands.taken()

    main(made)
    assert "systemctl start tinyfat-site.service" in commands.taken()  # nothing has changed: it is not disturbed

    (made.path(PUBLIC_FOLDER) / "page.html").touch()
    plane.ledger.identity = identity(serial=2)
    assert main(made) == 0
    assert "systemctl disable --now tinyfat-site.service" in commands.taken()
    assert "443" not in made.path(INPUT_RULES_FILE).read_text()
    assert not made.path(SITE_FOLDER).exists()
    assert (made.path(PUBLIC_FOLDER) / "page.html").exists()

    main(made)
    assert not any("tinyfat-site" in line for line in commands.ran)


def test_a_new_certificate_is_taken_up_and_nothing_else_is_touched(
    plane: ControlPlane, new: Make, commands: Commands
) -> None:
    made = with_caddy(new())
    plane.ledger.identity = identity(site=own_site())
    assert main(made) == 0
    commands.taken()
    later = SiteAuthority(SECRET, "agents.example.org").certificate(
        "agent-1", "ada.agents.example.org", datetime(2026, 12, 31, tzinfo=UTC)
    )
    plane.ledger.identity = identity(site=SiteTls(*later))
    assert main(made) == 0
    assert made.path(f"{SITE_FOLDER}/site.pem").read_text() == later[0] != own_site().certificate
    took_up = ["systemctl enable tinyfat-site.service", "systemctl reload-or-restart tinyfat-site.service"]
    assert commands.taken() == ["systemctl start tinyfat-box.service", *took_up]


def test_it_asks_again_when_its_identity_says(plane: ControlPlane, new: Make, commands: Commands) -> None:
    made = new()
    assert main(made) == 0
    assert not made.path(IDENTITY_TIMER_FILE).exists()  # once a day, as its unit says
    commands.taken()
    plane.ledger.identity = identity(again_seconds=48)
    assert main(made) == 0
    paced = ["systemctl daemon-reload", "systemctl restart tinyfat-identity.timer"]
    assert commands.taken()[-2:] == paced
    text = made.path(IDENTITY_TIMER_FILE).read_text()
    assert "OnActiveSec=\nOnActiveSec=48\nOnUnitActiveSec=48\nRandomizedDelaySec=2\n" in text
    assert main(made) == 0
    assert not any("timer" in line for line in commands.taken())  # its time does not begin anew
    plane.ledger.identity = identity()
    assert main(made) == 0
    assert commands.taken()[-2:] == paced and "OnUnitActiveSec=86400" in made.path(IDENTITY_TIMER_FILE).read_text()


def test_who_may_come_in_changes_without_a_moment_in_which_sshd_is_away(
    plane: ControlPlane, new: Make, commands: Commands
) -> None:
    made = new()
    assert main(made) == 0
    assert "systemctl try-reload-or-restart ssh.service" in commands.taken()  # for its host key
    plane.ledger.identity = identity(serial=2, owner_keys=())
    assert main(made) == 0
    assert made.path("/etc/ssh/tinyfat/keys/owner").read_text() == ""
    assert not any("ssh" in line for line in commands.taken())


def test_where_there_is_no_caddy_it_is_installed_and_debians_unit_never_runs(
    plane: ControlPlane, new: Make, commands: Commands
) -> None:
    plane.ledger.identity = identity(site=own_site())
    assert main(new()) == 0
    mask, update, install = (line for line in commands.taken() if "caddy" in line or "apt-get" in line)
    assert mask == "systemctl mask caddy.service"
    assert "apt-get" in update and update.endswith(" update")
    assert install.endswith("install -y --no-install-recommends caddy")


def test_what_could_not_be_done_is_told_to_the_control_plane(
    plane: ControlPlane, new: Make, commands: Commands
) -> None:
    made = new()
    commands.failing = "apt-get"
    plane.ledger.identity = identity(serial=7, site=own_site())
    assert main(made) == EXIT_AGAIN
    (outcome,) = plane.ledger.outcomes
    assert outcome.serial == 7
    assert "its site could not be set" in outcome.complaint and "apt-get failed" in outcome.complaint
    assert box_json(made)["identity_serial"] == 7  # the agent did not have to wait for that

    commands.failing = ""
    assert main(made) == 0
    assert plane.ledger.outcomes[-1] == Outcome(7)


@pytest.mark.parametrize("acme_ca", ["", own_site().certificate])
def test_a_certificate_by_acme_needs_no_other_port(plane: ControlPlane, new: Make, acme_ca: str) -> None:
    made = with_caddy(new())
    plane.ledger.identity = identity(site=SiteTls(acme_url="https://acme.example.org/dir", acme_ca=acme_ca))
    assert main(made) == 0
    text = made.path(f"{SITE_FOLDER}/Caddyfile").read_text()
    assert "\t\t\tdir https://acme.example.org/dir\n" in text and "disable_http_challenge" in text
    assert ("trusted_roots /etc/tinyfat-site/acme-ca.pem" in text) is bool(acme_ca)


def test_caddy_itself_reads_its_configuration(tmp_path: Path) -> None:
    if not shutil.which("caddy"):
        pytest.skip("no caddy here (Debian: apt-get install caddy)")
    for site in (SiteTls("c", "k"), SiteTls(acme_url="https://acme.example.org/dir", acme_ca="c")):
        (tmp_path / "Caddyfile").write_text(caddyfile("ada.agents.example.org", site))
        argv = ["caddy", "adapt", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (server,) = json.loads(done.stdout)["apps"]["http"]["servers"].values()
        assert server["listen"] == [":443"] and server["protocols"] == ["h1", "h2"]
        assert json.loads(done.stdout)["admin"] == {"listen": "unix//var/lib/tinyfat-site/admin.sock"}


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": "ada\nroot"},
        {"hostname": "../etc"},
        {"owner_keys": ('command="sh" ssh-ed25519 AAAA',)},
        {"owner_keys": ("ssh-ed25519 AAAA\nssh-ed25519 BBBB",)},
        {"ssh_ca": "no key"},
        {"ssh_host_key": "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"},
        {"ssh_networks": ("0.0.0.0/0 } accept; add rule",)},
        {"machine_id": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_identity_that_makes_no_sense_changes_nothing(
    plane: ControlPlane, new: Make, commands: Commands, change: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.ledger.identity = replace(plane.ledger.identity, **change)  # type: ignore[arg-type]

    async def of(machine_id: str) -> object:
        return plane.ledger.identity

    monkeypatch.setattr(plane.ledger, "of", of)

    assert main(new()) == EXIT_AGAIN
    assert commands.ran == []


def test_an_order_that_cannot_be_read_is_said_once(new: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = new()
    made.path("/etc/tinyfat/enrol.json").write_text("{")

    assert main(made) == EXIT_REFUSED
    assert "make the machine anew" in capsys.readouterr().err


class TestFetchingTheBox:
    def fetch(self, tmp_path: Path, plane: ControlPlane, sha256: str, authority: str) -> int:
        enrol, ca = tmp_path / "enrol.json", tmp_path / "ca.pem"
        enrol.write_text(json.dumps({"control_url": plane.url, "box_sha256": sha256}))
        ca.write_text(authority)
        (tmp_path / "box").mkdir(exist_ok=True)
        return fetch_box.main([str(enrol), str(ca), str(tmp_path / "box")])

    def test_it_is_there_and_runs(self, tmp_path: Path, plane: ControlPlane, archive: bytes) -> None:
        sha256 = hashlib.sha256(archive).hexdigest()
        assert self.fetch(tmp_path, plane, sha256, plane.authority.pem) == 0
        assert self.fetch(tmp_path, plane, sha256, plane.authority.pem) == 0  # twice is once

        current = tmp_path / "box" / "current"
        assert os.readlink(current) == sha256
        program = "import tinyfat.box.__main__, tinyfat.box.enrol, tinyfat.box.runtimes.openclaw, websockets, sys;"
        program += "print(websockets.__file__, 'cryptography' in sys.modules)"
        base = Path(os.path.realpath("/proc/self/exe"))  # no site-packages of ours: what the archive holds must do
        done = subprocess.run(
            [str(base), "-S", "-c", program],
            env={"PYTHONPATH": str(current), "PYTHONHOME": sys_home(), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == f"{current}/websockets/__init__.py False\n", done.stderr

    def test_another_one_takes_its_place(self, tmp_path: Path, plane: ControlPlane, archive: bytes) -> None:
        sha256 = hashlib.sha256(archive).hexdigest()
        (tmp_path / "box" / "old").mkdir(parents=True)
        (tmp_path / "box" / "current").symlink_to("old")

        assert self.fetch(tmp_path, plane, sha256, plane.authority.pem) == 0
        assert os.readlink(tmp_path / "box" / "current") == sha256

    def test_an_unknown_authority_brings_nothing(self, tmp_path: Path, plane: ControlPlane, archive: bytes) -> None:
        other = TlsAuthority(b"another home".ljust(32)).pem

        assert self.fetch(tmp_path, plane, hashlib.sha256(archive).hexdigest(), other) == 1
        assert list((tmp_path / "box").iterdir()) == []

    def test_a_box_that_is_not_there_is_said_so(
        self, tmp_path: Path, plane: ControlPlane, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.fetch(tmp_path, plane, "0" * 64, plane.authority.pem) == 1
        assert "404" in capsys.readouterr().err


def sys_home() -> str:
    return f"{sys.base_prefix}:{sys.base_exec_prefix}"


def test_bytes_of_another_hash_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_box, "fetch", lambda url, ca: b"something else")

    with pytest.raises(fetch_box.FetchFailed, match="is not the archive"):
        fetch_box.put_box("https://192.0.2.1", "0" * 64, tmp_path / "ca", tmp_path / "box")
    assert not (tmp_path / "box").exists()


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../out", "a//b", ".", "link", "device"])
def test_an_archive_that_leads_out_is_refused_whole(tmp_path: Path, name: str) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        good = tarfile.TarInfo("tinyfat/__init__.py")
        tar.addfile(good, io.BytesIO())
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        elif name == "device":
            member.type = tarfile.CHRTYPE
        tar.addfile(member)

    with pytest.raises(fetch_box.FetchFailed):
        fetch_box.unpack(gzip.compress(raw.getvalue()), tmp_path / "box")
    assert not (tmp_path / "box").exists()
    assert not (tmp_path / "out").exists()


def test_an_archive_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_box, "UNPACKED_BYTES_MAX", 1000)

    with pytest.raises(fetch_box.FetchFailed):
        fetch_box.unpack(box_archive().data, tmp_path / "box")


def test_the_archive_is_the_same_for_the_same_source_and_holds_nothing_else() -> None:
    one, other = box_archive(), box_archive()

    assert one == other
    with tarfile.open(fileobj=io.BytesIO(one.data)) as tar:
        names = tar.getnames()
    assert {name.split("/")[0] for name in names} == {"tinyfat", "websockets"}
    assert {name.split("/")[1] for name in names if name.startswith("tinyfat/")} == {"__init__.py", "domain", "box"}
    assert "tinyfat/box/runtimes/locks/openclaw/package-lock.json" in names
    assert not any(name.endswith((".so", ".pyc")) for name in names)
