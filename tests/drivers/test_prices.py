"""Prices are pinned to ids that are written out; what is guessed or unknown is refused at start, by name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tinyfat.domain.prices import UnknownPrice
from tinyfat.drivers.inference.prices import known_prices
from tinyfat.drivers.inference.vendors import VENDORS
from tinyfat.settings import SettingsRefused, load_settings

AT = datetime(2026, 11, 20, tzinfo=UTC)
MODEL_VARIABLES = ("FIREWORKS_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "TINYFAT_MODEL_URL", "TINYFAT_MODEL_KEY",
                   "TINYFAT_MODEL", "TINYFAT_MODELS")  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in MODEL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TINYFAT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda v: v.name)
def test_what_agents_get_by_default_has_a_price(vendor: object) -> None:
    price = known_prices(vendor.name, vendor.model, AT).base  # type: ignore[attr-defined]
    assert 0 < price.cached <= price.input < price.output


def test_the_managed_model_costs_what_the_plan_says() -> None:
    price = known_prices("Fireworks", "accounts/fireworks/models/minimax-m2p1", AT).base
    assert (price.input, price.output) == (300, 1200) and "minimax-m2p1" in price.source


@pytest.mark.parametrize(
    ("vendor", "model"),
    [("fireworks", "minimax-m2.1"), ("fireworks", "minimax-m2p1"), ("anthropic", "claude-sonnet-4-55"),
     ("anthropic", "claude-sonnet-4-5-turbo"), ("minimax", "xx-M2.1-highspeed-yy"), ("openai", ""), ("nobody", "gpt-5"),
     ("openai", "gpt-5-mini-")],
)  # fmt: skip
def test_a_guess_is_refused(vendor: str, model: str) -> None:
    with pytest.raises(UnknownPrice, match="price_input"):
        known_prices(vendor, model, AT)


@pytest.mark.parametrize("hour", [0, 12])
@pytest.mark.parametrize("model", ["deepseek-chat", "deepseek-v4-flash"])
def test_a_price_by_the_hour_of_the_day_is_no_known_price(model: str, hour: int) -> None:
    """A relay that starts at night would count half of what the day costs."""
    with pytest.raises(UnknownPrice, match="price_input and price_output, the dearest"):
        known_prices("deepseek", model, AT.replace(hour=hour))


def test_a_dated_snapshot_is_its_model() -> None:
    dated = known_prices("anthropic", "claude-sonnet-4-5-20250929", AT)
    assert dated == known_prices("anthropic", "claude-sonnet-4-5", AT)
    assert dated.at(200_000).input == 3000 and dated.at(200_001).input == 6000


def test_writing_for_an_hour_costs_twice_the_fresh_tokens_at_anthropic_alone() -> None:
    price = known_prices("Anthropic", "claude-sonnet-4-5", AT).base
    assert (price.input, price.cache_written, price.hour) == (3000, 3750, 6000)
    assert known_prices("fireworks", "accounts/fireworks/models/minimax-m2p1", AT).base.cache_written_1h is None


def test_without_a_key_the_stand_in_costs_as_the_managed_model(home: Path) -> None:
    [route] = load_settings().model_routes("http://127.0.0.1:1/v1", AT)
    assert (route.alias, route.url, route.key_variable) == ("main", "http://127.0.0.1:1/v1", "")
    assert (route.prices.base.input, route.prices.base.output, route.prices.base.source) == (300, 1200, "stand-in")


def test_a_vendors_key_chooses_its_route(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    settings = load_settings()
    [route] = settings.model_routes("http://127.0.0.1:1/v1", AT)
    assert (route.vendor, route.api, route.model) == ("anthropic", "anthropic-messages", "claude-sonnet-4-5")
    assert settings.vendor_keys([route]) == {"ANTHROPIC_API_KEY": "k"}
    assert "'k'" not in repr(settings) + repr(route)


TABLE = """
[[models]]
vendor = "fireworks"
model = "accounts/fireworks/models/minimax-m2p1"

[[models]]
vendor = "our-own"
model = "qwen"
url = "http://10.0.0.7:8000/v1/"
api = "openai-completions"
key_variable = "OUR_OWN_KEY"
price_input = 0.1
price_output = 0.4

[[models]]
alias = "fast"
vendor = "openai"
model = "gpt-5-mini"
price_input = 9
price_output = 9
"""


def test_the_table_in_its_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "tinyfat.toml").write_text(TABLE)
    monkeypatch.setenv("OUR_OWN_KEY", "secret")
    settings = load_settings()
    routes = settings.model_routes("", AT)
    assert [(r.alias, r.vendor) for r in routes] == [("main", "fireworks"), ("main", "our-own"), ("fast", "openai")]
    assert routes[1].url == "http://10.0.0.7:8000/v1" and routes[1].prices.base.input == 100
    assert routes[2].prices.base.input == 9000 and routes[2].prices.base.source == "tinyfat.toml"
    assert settings.vendor_keys(routes) == {"OUR_OWN_KEY": "secret"}


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ('vendor = "openai"\nmodel = "gpt-99"', "openai/gpt-99"),
        ('vendor = "openai"', "model"),
        ('vendor = "own"\nmodel = "m"\nprice_input = 1\nprice_output = 1', "url and api"),
        ('vendor = "openai"\nmodel = "gpt-5-mini"\nprice_input = 1', "together"),
        ('vendor = "openai"\nmodel = "gpt-5-mini"\nprice_input = -1\nprice_output = 1', "-1"),
        ('vendor = "openai"\nmodel = "gpt-5-mini"\nnonsense = 1', "nonsense"),
        ('vendor = "openai"\nmodel = "gpt-5-mini"\nalias = "fast"', "'main'"),
        (
            'vendor = "own"\nmodel = "m"\nurl = "ftp://x"\napi = "openai-completions"\nprice_input=1\nprice_output=1',
            "ftp",
        ),
    ],
)
def test_an_entry_that_cannot_be_is_refused_by_name(home: Path, entry: str, named: str) -> None:
    (home / "tinyfat.toml").write_text(f"[[models]]\n{entry}\n")
    with pytest.raises(SettingsRefused, match=named):
        load_settings()


def test_a_vendors_key_goes_to_that_vendor_only(home: Path) -> None:
    entry = '[[models]]\nvendor = "openai"\nmodel = "gpt-5-mini"\nurl = "https://elsewhere.example/v1"\n'
    (home / "tinyfat.toml").write_text(entry)
    [route] = load_settings().model_routes("", AT)
    assert route.key_variable == ""


def test_a_model_elsewhere_needs_a_price(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYFAT_MODEL_URL", "http://127.0.0.1:9/v1")
    assert load_settings().model_routes("", AT)[0].prices.base.input == 0
    monkeypatch.setenv("TINYFAT_MODEL_URL", "https://llm.example.org/v1")
    with pytest.raises(SettingsRefused, match=r"TINYFAT_MODEL_URL.*llm\.example\.org"):
        load_settings()
