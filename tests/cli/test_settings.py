"""Settings: from the environment, from tinyfat.toml, refused by name."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tinyfat.listen_address import Address
from tinyfat.settings import SettingsRefused, load_settings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No setting but the home; no file in the working folder."""
    for name in list(os.environ):
        if name.startswith("TINYFAT_") or name in ("FIREWORKS_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
            monkeypatch.delenv(name)
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TINYFAT_HOME", str(tmp_path / "home"))
    return tmp_path


def test_the_defaults_are_those_of_the_issue(bare: Path) -> None:
    settings = load_settings()
    assert settings.home == bare / "home"
    assert settings.database_url is None and settings.smarthost is None
    assert settings.domain == "tinyfat.localhost"
    assert settings.smtp_listen == Address("127.0.0.1", 2525) and settings.http_listen == Address("127.0.0.1", 8025)
    assert [str(n) for n in settings.trusted_networks] == ["127.0.0.0/8", "::1/128"]
    assert settings.model_choice() is None


WRONG = {
    "SMTP_LISTEN": ["2525", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:0x1", "http://127.0.0.1:1", ""],
    "HTTP_LISTEN": ["here", "127.0.0.1:"],
    "DOMAIN": [
        *("", "a b", "ex ample.org", "-.org", "-bad-.example", "bad-.example", "a_b.example", "a..b"),
        *("x" * 64 + ".org", "münchen.example"),
    ],
    "DATABASE_URL": ["mysql://a/b", "/var/lib/postgres"],
    "SMARTHOST": ["ftp://mail.example.org", "smtp://", "mail.example.org:99999", "mail.example.org?tls=perhaps"],
    "MAIL_TRUST": ["everybody", "10.0.0.0/33", "10.0.0.1/8,x"],
    "MAIL_SIZE_MAX": ["0", "many", "99999999999"],
    "MAIL_RATE_THREAD": ["0", "-1", "x"],
    "MAIL_RATE_SENDER": ["0"],
    "MAIL_QUICK_ANSWERS": ["-1", "x", "1001"],
    "MODEL_URL": ["api.example.org", "ftp://x/y"],
    "MODEL_PRICE": ["1", "1/2/3", "a/b", "-1/1", "nan/1", "1e9/1", ""],
    "NAMESERVERS": ["dns.example.org", "1.2.3"],
    "TURN_DEADLINE": ["0", "-5", "soon", "nan", "inf"],
    "RUNTIME_MEMORY": ["1", "lots"],
    "LOG": ["LOUD"],
    "DKIM_SELECTOR": ["a b", "", "-a", "a..b", "a;p=x"],
    "POOL_RUNTIME": ["gpt", ""],
    "HETZNER_LOCATIONS": ["mars", "fsn1,Falkenstein", "1fsn"],
    "DOCKER_URL": ["foo", "", "unix://", "ssh://host"],
    "DNS_URL": ["foo", "ftp://x"],
    "MACHINE": ["cloud"],
    "SITE_CERTIFICATES": ["theirs"],
    "KEEP_LOGS": ["-1", "a week"],
    "DISK_FLOOR": ["much", "-1", "5 bananas"],
    "PROCESS_SHARED": ["perhaps"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TINYFAT_{name}", value)
    with pytest.raises(SettingsRefused, match=f"TINYFAT_{name}"):
        load_settings()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_in_a_file_is_refused_by_file_and_name(bare: Path, name: str, value: str) -> None:
    file = bare / "home" / "tinyfat.toml"
    file.write_text(f'{name.lower()} = "{value}"\n')
    with pytest.raises(SettingsRefused) as refused:
        load_settings()
    assert str(file) in str(refused.value) and name.lower() in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYFAT_LOG", "LOUD")
    monkeypatch.setenv("TINYFAT_DOMAIN", "a b")
    with pytest.raises(SettingsRefused, match=r"(?s)TINYFAT_DOMAIN.*TINYFAT_LOG|TINYFAT_LOG.*TINYFAT_DOMAIN"):
        load_settings()


@pytest.mark.parametrize("name", ["SMARTHOST", "DATABASE_URL", "MODEL_KEY", "INBOUND_SECRET"])
def test_a_secret_is_never_repeated(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"TINYFAT_{name}", "ftp://user:hunter2@host/x")
    monkeypatch.setenv("TINYFAT_LOG", "LOUD")
    with pytest.raises(SettingsRefused) as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)
    monkeypatch.delenv("TINYFAT_LOG")
    monkeypatch.setenv(f"TINYFAT_{name}", "smtp://user:hunter2@host" if name == "SMARTHOST" else "hunter2")
    try:
        assert "hunter2" not in repr(load_settings())
    except SettingsRefused as error:
        assert "hunter2" not in str(error)


def test_a_setting_that_does_not_exist_is_refused(bare: Path) -> None:
    (bare / "home" / "tinyfat.toml").write_text('smpt_listen = "127.0.0.1:1"\n')
    with pytest.raises(SettingsRefused, match="smpt_listen: there is no such setting"):
        load_settings()


@pytest.mark.parametrize("text", ["domain = ", "\xff", "domain = 'a'\ndomain = 'b'"])
def test_a_file_that_cannot_be_read_is_named(bare: Path, text: str) -> None:
    (bare / "home" / "tinyfat.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsRefused, match=r"home/tinyfat\.toml"):
        load_settings()


def test_the_environment_goes_before_the_home(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "home" / "tinyfat.toml").write_text('domain = "home.example"\nlog = "INFO"\nturn_deadline = 7\n')
    monkeypatch.setenv("TINYFAT_LOG", "ERROR")
    settings = load_settings()
    assert (settings.turn_deadline, settings.domain, settings.log) == (7.0, "home.example", "ERROR")


@pytest.mark.parametrize(
    "text", ['hetzner_url = "https://elsewhere.example"\ndomain = "work.example"\n', "domain = ", "\xff"]
)
def test_a_file_of_the_working_folder_sends_no_token_elsewhere(
    bare: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    before = load_settings()
    (bare / "work" / "tinyfat.toml").write_bytes(text.encode("latin-1"))
    assert load_settings() == before
    assert "work/tinyfat.toml is not read" in caplog.text
    monkeypatch.chdir(bare / "home")
    caplog.clear()
    load_settings()
    assert not caplog.text


def test_trust_is_nobody_where_the_domain_is_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYFAT_DOMAIN", "Agents.Example.ORG.")
    assert load_settings().domain == "agents.example.org"
    assert load_settings().trusted_networks == ()
    monkeypatch.setenv("TINYFAT_MAIL_TRUST", "10.0.0.0/8, 192.0.2.7")
    assert [str(n) for n in load_settings().trusted_networks] == ["10.0.0.0/8", "192.0.2.7/32"]
    monkeypatch.setenv("TINYFAT_MAIL_TRUST", "none")
    assert load_settings().trusted_networks == ()


@pytest.mark.parametrize(
    ("text", "host", "port", "tls", "user", "password"),
    [
        ("mail.example.org", "mail.example.org", 25, "offered", "", ""),
        ("127.0.0.1:1025", "127.0.0.1", 1025, "offered", "", ""),
        ("smtp://me:p%40ss@mail.example.org", "mail.example.org", 587, "required", "me", "p@ss"),
        ("smtps://me:x@mail.example.org", "mail.example.org", 465, "implicit", "me", "x"),
        ("smtp://mail.example.org:2525?tls=required", "mail.example.org", 2525, "required", "", ""),
        ("smtp://me:x@localhost:25?tls=none", "localhost", 25, "none", "me", "x"),
        ("[::1]:1025", "::1", 1025, "offered", "", ""),
    ],
)
def test_a_smarthost(
    monkeypatch: pytest.MonkeyPatch, text: str, host: str, port: int, tls: str, user: str, password: str
) -> None:
    monkeypatch.setenv("TINYFAT_SMARTHOST", text)
    smarthost = load_settings().smarthost
    assert smarthost is not None
    assert (smarthost.address, smarthost.tls, smarthost.user, smarthost.password) == (
        Address(host, port), tls, user, password,
    )  # fmt: skip


def test_a_certificate_without_its_key_and_a_file_that_is_not_there_are_refused(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYFAT_SMTP_CERTIFICATE", str(bare / "nothing.pem"))
    with pytest.raises(SettingsRefused, match="TINYFAT_SMTP_CERTIFICATE_KEY"):
        load_settings()
    monkeypatch.setenv("TINYFAT_SMTP_CERTIFICATE_KEY", str(bare / "nothing.pem"))
    with pytest.raises(SettingsRefused, match=r"TINYFAT_SMTP_CERTIFICATE: .*nothing\.pem"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value", "source"),
    [
        ("FIREWORKS_API_KEY", "k", "FIREWORKS_API_KEY"),
        ("ANTHROPIC_API_KEY", "k", "ANTHROPIC_API_KEY"),
        ("OPENAI_API_KEY", "k", "OPENAI_API_KEY"),
        ("TINYFAT_MODEL_URL", "https://models.example.org/v1", "TINYFAT_MODEL_URL"),
    ],
)
def test_the_model_follows_from_the_key_that_is_set(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, source: str
) -> None:
    monkeypatch.setenv(variable, value)
    if variable == "TINYFAT_MODEL_URL":
        monkeypatch.setenv("TINYFAT_MODEL_PRICE", "0.30/1.20")
    choice = load_settings().model_choice()
    assert choice is not None and source in choice.source and choice.url.startswith("https://")


def test_a_model_without_a_known_price_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYFAT_MODEL_URL", "https://models.example.org/v1")
    monkeypatch.setenv("TINYFAT_MODEL", "qwen3-32b")
    with pytest.raises(SettingsRefused, match=r"'qwen3-32b' at models\.example\.org.* Set TINYFAT_MODEL_PRICE="):
        load_settings()
    monkeypatch.setenv("TINYFAT_MODEL_PRICE", "0.30/1.20")
    (route,) = load_settings().model_routes("http://127.0.0.1", datetime.now(UTC))
    assert (route.prices.base.input, route.prices.base.output) == (300, 1200)  # nano-dollars a token
    assert route.prices.base.source == "TINYFAT_MODEL_PRICE" and route.key_variable == ""


def test_the_operators_price_goes_before_the_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIREWORKS_API_KEY", "k")
    monkeypatch.setenv("TINYFAT_MODEL_PRICE", "$2/$3")
    (route,) = load_settings().model_routes("http://127.0.0.1", datetime.now(UTC))
    assert (route.prices.base.input, route.prices.base.output) == (2000, 3000)
    assert route.key_variable == "FIREWORKS_API_KEY" and route.vendor == "fireworks"


def test_a_model_on_this_machine_needs_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYFAT_MODEL_URL", "http://127.0.0.1:11434/v1")
    (route,) = load_settings().model_routes("http://127.0.0.1", datetime.now(UTC))
    assert (route.prices.base.input, route.prices.base.output) == (0, 0)


def test_a_key_without_a_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYFAT_MODEL_KEY", "k")
    with pytest.raises(SettingsRefused, match="TINYFAT_MODEL_URL is not"):
        load_settings()


def refusal() -> str:
    with pytest.raises(SettingsRefused) as refused:
        load_settings()
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("26214400", 26214400), ("25MB", 25_000_000), ("25 MiB", 25 * 2**20), ("25m", 25 * 2**20), ("1.5 kB", 1500)],
)
def test_a_size_is_written_as_people_write_it(monkeypatch: pytest.MonkeyPatch, text: str, bytes_: int) -> None:
    monkeypatch.setenv("TINYFAT_MAIL_SIZE_MAX", text)
    assert load_settings().mail_size_max == bytes_


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MAIL_RATE_THREAD", "x", "is not a whole number"),
        ("MAIL_RATE_THREAD", "0", "is to be 1 at least"),
        ("TURN_DEADLINE", "soon", "is not a number"),
        ("TURN_DEADLINE", "0", "is to be more than 0"),
        ("PROCESS_SHARED", "perhaps", "is not true or false"),
        ("SITE_CERTIFICATES", "theirs", "not one of: (empty), acme, own"),
        ("MAIL_SIZE_MAX", "25 bananas", "is not a size, such as 26214400, 25MB or 25MiB"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"TINYFAT_{name}", value)
    assert words in refusal() and "Input should" not in refusal()


def test_models_that_are_no_list_are_refused_in_words(bare: Path) -> None:
    (bare / "home" / "tinyfat.toml").write_text('models = "many"\n')
    assert "is not a list of entries" in refusal()


@pytest.mark.parametrize(
    "content", ["root:x:0:0", "", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_dkim_key_that_is_none_is_refused_in_one_line(
    bare: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    file = bare / "dkim.pem"
    file.write_text(content)
    monkeypatch.setenv("TINYFAT_DKIM_KEY", str(file))
    assert "\n" not in refusal() and "openssl genrsa" in refusal()


def test_a_certificate_that_does_not_fit_its_key_is_refused(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CERTIFICATE", "CERTIFICATE_KEY"):
        (bare / name).write_text("no PEM")
        monkeypatch.setenv(f"TINYFAT_SMTP_{name}", str(bare / name))
    assert "is no PEM that fits" in refusal()


@pytest.mark.parametrize(
    ("one", "other"), [("SMTP", "HTTP"), ("HTTP", "RELAY"), ("SMTP", "BOX"), ("RELAY", "BOX_RELAY")]
)
def test_two_listeners_at_one_port_are_refused(monkeypatch: pytest.MonkeyPatch, one: str, other: str) -> None:
    monkeypatch.setenv(f"TINYFAT_{one}_LISTEN", "127.0.0.1:2599")
    monkeypatch.setenv(f"TINYFAT_{other}_LISTEN", "0.0.0.0:2599")
    assert f"TINYFAT_{one}_LISTEN" in refusal() and f"TINYFAT_{other}_LISTEN" in refusal()
    monkeypatch.setenv(f"TINYFAT_{other}_LISTEN", "127.0.0.2:2599")
    load_settings()


def test_all_that_does_not_go_together_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYFAT_MACHINE", "hetzner")
    monkeypatch.setenv("TINYFAT_SMTP_CERTIFICATE", "/nowhere.pem")
    monkeypatch.setenv("TINYFAT_DISK_FLOOR", "1TB")
    for name in ("HETZNER_TOKEN", "BOX_URL", "SMTP_CERTIFICATE_KEY", "DISK_ALARM"):
        assert f"TINYFAT_{name}" in refusal()
