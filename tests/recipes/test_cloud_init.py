"""User-data: the text itself, beside a copy that is read in review; and read back by the programs it is for.

python -m tests.recipes.test_cloud_init    writes the copy anew
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.servers import LINK_TOKEN, OWNER_KEY, SERVER, order
from tinyfat.domain.enrolment import EnrolmentRefused
from tinyfat.recipes.cloud_init import USER_DATA_BYTES_MAX, _yaml, user_data

COPY = Path(__file__).parent / "user_data.yaml"
SYSTEM_PYTHON = "/usr/bin/python3"


def parsed(text: str) -> Any:
    """By PyYAML, which is cloud-init's reader; it is Debian's, not ours."""
    program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout, ensure_ascii=False)"
    done = subprocess.run([SYSTEM_PYTHON, "-c", program], input=text, capture_output=True, text=True, check=False)
    if "No module named 'yaml'" in done.stderr or not shutil.which(SYSTEM_PYTHON):
        pytest.skip("no PyYAML beside /usr/bin/python3 (Debian: apt-get install python3-yaml)")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files(text: str) -> dict[str, dict[str, Any]]:
    return {file["path"]: file for file in parsed(text)["write_files"]}


def test_it_is_what_was_read_in_review() -> None:
    assert user_data(order()) == COPY.read_text("utf-8"), "python -m tests.recipes.test_cloud_init writes it anew"


def test_cloud_init_finds_nothing_wrong(tmp_path: Path) -> None:
    if not shutil.which("cloud-init"):
        pytest.skip("no cloud-init here (Debian: apt-get install cloud-init)")
    for number, changes in enumerate(({}, {"published": False, "owner_keys": (), "control_ca": "", "image": "x"})):
        file = tmp_path / f"{number}.yaml"
        file.write_text(user_data(order(**changes)), "utf-8")
        done = subprocess.run(
            ["cloud-init", "schema", "--config-file", str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "deprecat" not in done.stdout + done.stderr


def test_the_same_order_is_the_same_text_and_fits_every_provider() -> None:
    keys = tuple(f"{OWNER_KEY} {number}" for number in range(50))

    assert user_data(order()) == user_data(order())
    assert len(user_data(order(owner_keys=keys)).encode()) < USER_DATA_BYTES_MAX


def test_nothing_in_it_opens_an_agent() -> None:
    """The link's token and the private host key come with the identity, to whoever holds the machine's key."""
    text = user_data(order())

    assert LINK_TOKEN not in text
    assert "PRIVATE KEY" not in text


def test_the_token_is_for_root_alone() -> None:
    written = files(user_data(order()))

    holders = [path for path, file in written.items() if SERVER.enrolment_token in file["content"]]
    assert holders == ["/etc/tinyfat/enrol.json"]
    assert written["/etc/tinyfat/enrol.json"]["permissions"] == "0600"


def test_nobody_has_a_password_and_the_runtime_no_sudo() -> None:
    users = {user["name"]: user for user in parsed(user_data(order()))["users"]}

    assert all(user["lock_passwd"] is True for user in users.values())
    assert "sudo" not in users["tinyfat"]
    assert users["tinyfat"]["shell"] == "/usr/sbin/nologin"
    assert not any("ssh_authorized_keys" in user for user in users.values())  # they come and go with the identity


def test_ports_are_open_only_as_ordered() -> None:
    everywhere = files(user_data(order(published=False, ssh_networks=("0.0.0.0/0", "::/0"))))
    nobody = files(user_data(order(published=False, ssh_networks=())))
    published = files(user_data(order()))

    assert everywhere["/etc/tinyfat/input.nft"]["content"] == (
        "ip saddr { 0.0.0.0/0 } tcp dport 22 accept\nip6 saddr { ::/0 } tcp dport 22 accept\n"
    )
    assert nobody["/etc/tinyfat/input.nft"]["content"] == ""
    assert "tcp dport 443 accept\n" in published["/etc/tinyfat/input.nft"]["content"]


@pytest.mark.parametrize("network", ["0.0.0.0/0 } accept; #", "10.0.0.1/8", "everywhere", ""])
def test_what_is_no_network_becomes_no_rule(network: str) -> None:
    with pytest.raises(EnrolmentRefused):
        user_data(order(ssh_networks=(network,)))


def test_what_serves_a_site_is_no_part_of_the_first_boot() -> None:
    """Its first start comes with an identity that publishes something: box/site."""
    content = files(user_data(order()))["/etc/tinyfat/set-up.sh"]["content"]

    assert "caddy" not in content and "tinyfat-site" not in content


def test_every_text_arrives_as_it_is() -> None:
    texts = [
        *("", " ", "\n", "a\n", "a\n\n", "\na\n", " a\nb\n", "a\n b\n\n c\n", "a: b #c", "- x", "| >", "%", "@", "`"),
        *("yes", "null", "0600", "1e3", "~", "'", '"', "\\", "\t", "a\tb\n", "\x07",
          "ä€🦊", "🦊\n", "# c\n", "\x85", "\u2028", "🦊\x07"),
    ]  # fmt: skip
    value: Any = {"texts": texts, "deep": {"list": [{"a": True, "b": 7, "c": []}], "none": []}}

    assert parsed("#cloud-config\n" + _yaml(value)) == value


@pytest.mark.parametrize("script", ["/etc/tinyfat/set-up.sh"])
def test_the_shell_reads_it(script: str) -> None:
    content = files(user_data(order()))[script]["content"]

    subprocess.run(["/bin/sh", "-n"], input=content, text=True, check=True)


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here (Debian: apt-get install systemd)")
    units = {path: file for path, file in files(user_data(order())).items() if path.startswith("/etc/systemd/system/")}
    assert len(units) == 7
    for path, file in units.items():
        (tmp_path / Path(path).name).write_text(file["content"])
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(unit) for unit in sorted(tmp_path.iterdir()))],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "tinyfat" in line and "not executable" not in line]
    assert complaints == []


if __name__ == "__main__":
    COPY.write_text(user_data(order()), "utf-8")
