"""The settings: the only place that reads the environment. docs/settings.md explains each one.

From the environment as TINYFAT_<NAME>, else from `tinyfat.toml` in TINYFAT_HOME as `<name>`, else the default. Never
from the working folder: a file that came with somebody's project could send our tokens to an address of its choice. A
value that cannot be is refused by name before anything starts.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from tinyfat.domain.mail.rhythm import QUICK_ANSWERS_MAX
from tinyfat.domain.prices import ModelRoute, own_price
from tinyfat.domain.usage import nanodollars
from tinyfat.drivers.inference.routes import MAIN, ModelEntry, RouteRefused, routes_of, standin_route, vendor_route
from tinyfat.drivers.inference.vendors import VENDORS
from tinyfat.listen_address import Address, address
from tinyfat.room_settings import RoomSettings
from tinyfat.server_settings import ServerSettings
from tinyfat.setting_checks import complaint_words, refusals
from tinyfat.setting_sizes import Size

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
FILE = "tinyfat.toml"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


log = logging.getLogger(__name__)


class SettingsRefused(ValueError):
    """A setting's value cannot be used."""


@dataclass(frozen=True, slots=True)
class Smarthost:
    """Where mail leaves. `tls`: "implicit" (port 465), "required" (STARTTLS or nothing), "offered" or "none"."""

    address: Address
    tls: str
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Smarthost({self.address}, tls={self.tls!r}, user={self.user!r})"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model every agent uses, and where that came from, in words for people."""

    api: str
    url: str
    key: str
    model: str
    source: str


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """Dollars per million tokens."""

    input: Decimal
    output: Decimal


def _smarthost(value: object) -> Smarthost | None:
    if value is None or isinstance(value, Smarthost):
        return value
    text = str(value).strip()
    if not text:
        return None
    parts = urlsplit(text if "://" in text else f"smtp://{text}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    wish = parse_qs(parts.query).get("tls", [""])[0]
    if parts.scheme not in ("smtp", "smtps") or not host or wish not in ("", "none", "offered", "required"):
        # The value may hold a password: it is not repeated.
        raise ValueError(
            "is not HOST:PORT, smtp://[USER:PASSWORD@]HOST[:PORT][?tls=required|offered|none] or smtps://..."
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    tls = "implicit" if parts.scheme == "smtps" else wish or _usual_tls(host, bool(user))
    return Smarthost(Address(host, port or _usual_port(tls, bool(user))), tls, user, password)


def _usual_tls(host: str, with_password: bool) -> str:
    if host in ("localhost", "::1") or host.startswith("127."):
        return "offered"
    return "required" if with_password else "offered"


def _usual_port(tls: str, with_password: bool) -> int:
    return 465 if tls == "implicit" else 587 if with_password else 25


def _networks(value: object) -> tuple[Network, ...] | None:
    if value is None or isinstance(value, tuple):
        return value
    words = str(value).replace(",", " ").split() if not isinstance(value, list) else [str(v) for v in value]
    if words == ["none"]:
        return ()
    networks: list[Network] = []
    for word in words:
        try:
            networks.append(ipaddress.ip_network(word, strict=False))
        except ValueError:
            raise ValueError(f"{word!r} is not a network, such as 10.0.0.0/8 (several with commas; or none)") from None
    return tuple(networks)


# RFC 1123 2.1: letters, digits and inner hyphens. A selector's may have an underscore (RFC 6376 3.1 takes sub-domains).
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SELECTOR_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


def _selector(value: object) -> str:
    text = str(value).strip()
    if not all(map(_SELECTOR_LABEL.fullmatch, text.split("."))):
        raise ValueError(f"{value!r} is not a DKIM selector, such as tinyfat or mail.2026")
    return text


def _domain(value: object) -> str:
    text = str(value).strip().lower().rstrip(".")
    labels = text.split(".")
    if not all(map(_LABEL.fullmatch, labels)) or len(text) > 253:
        raise ValueError(f"{value!r} is not a domain, such as agents.example.org")
    return text


def _nameservers(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    words = str(value).replace(",", " ").split()
    for word in words:
        try:
            ipaddress.ip_address(urlsplit(f"//{word}").hostname or "")
        except ValueError:
            raise ValueError(f"{word!r} is not IP or IP:PORT of a nameserver") from None
    return tuple(words)


def _folder(value: object) -> Path:
    return Path(str(value)).expanduser().absolute()


def _url(value: object) -> str | None:
    if value is None or not str(value).strip():
        return None
    text = str(value).strip()
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname:
        raise ValueError(f"{text!r} is not an http:// or https:// URL")
    return text.rstrip("/")


def _database_url(value: object) -> str | None:
    text = str(value or "").strip()
    if text and urlsplit(text).scheme not in ("postgresql", "postgres"):
        raise ValueError("is not a postgresql:// URL")  # it may hold a password: it is not repeated
    return text or None


def _log_level(value: object) -> str:
    text = str(value).upper()
    if text not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError(f"{value!r} is not DEBUG, INFO, WARNING or ERROR")
    return text


def _dollars(value: object) -> Decimal:
    text = str(value).strip().removeprefix("$")
    nanodollars(text)
    return Decimal(text)


def _model_price(value: object) -> ModelPrice | None:
    if value is None or isinstance(value, ModelPrice):
        return value
    try:
        price_input, price_output = (Decimal(part.strip().removeprefix("$")) for part in str(value).split("/"))
        own_price(price_input, price_output, "")  # within what can be a price
    except (ArithmeticError, ValueError):
        raise ValueError(
            f"{value!r} is not INPUT/OUTPUT in dollars per million tokens, such as 0.30/1.20; 0/0 where it is free"
        ) from None
    return ModelPrice(price_input, price_output)


def _default_home() -> Path:
    return Path.home() / ".tinyfat"


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyfat"


class Settings(ServerSettings, RoomSettings, BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TINYFAT_", extra="forbid", frozen=True, populate_by_name=True)

    home: Annotated[Path, BeforeValidator(_folder)] = Field(default_factory=_default_home)
    cache: Annotated[Path, BeforeValidator(_folder)] = Field(default_factory=_default_cache)
    database_url: Annotated[str | None, BeforeValidator(_database_url)] = None
    domain: Annotated[str, BeforeValidator(_domain)] = "tinyfat.localhost"
    smtp_listen: Annotated[Address, NoDecode, BeforeValidator(address)] = Address("127.0.0.1", 2525)
    http_listen: Annotated[Address, NoDecode, BeforeValidator(address)] = Address("127.0.0.1", 8025)
    relay_listen: Annotated[Address, NoDecode, BeforeValidator(address)] = Address("127.0.0.1", 8026)
    smtp_certificate: Path | None = None  # PEM, with its chain: STARTTLS is offered when both are set
    smtp_certificate_key: Path | None = None
    smarthost: Annotated[Smarthost | None, NoDecode, BeforeValidator(_smarthost)] = None
    mail_trust: Annotated[tuple[Network, ...] | None, NoDecode, BeforeValidator(_networks)] = None
    mail_size_max: Size = Field(default=25 * 1024 * 1024, ge=1024, le=50 * 1024 * 1024)  # bytes
    process_shared: bool = False  # machines of the kind process for several owners, whatever does not hold
    process_sandbox: bool = True
    name_kept_days: int = Field(default=90, ge=0, le=3650)  # a destroyed agent's name, for its owner
    mail_rate_thread: int = Field(default=200, ge=1)  # turns an hour in one thread
    mail_rate_sender: int = Field(default=2000, ge=1)  # turns an hour for one sender
    mail_quick_answers: int = Field(default=QUICK_ANSWERS_MAX, ge=0, le=1000)  # in a row; 0: loops are not looked for
    inbound_secret: SecretStr | None = None
    dkim_key: Path | None = None  # PEM
    dkim_selector: Annotated[str, BeforeValidator(_selector)] = "tinyfat"
    nameservers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_nameservers)] = ()
    model_url: Annotated[str | None, BeforeValidator(_url)] = None
    model_key: SecretStr | None = None
    model: str | None = None
    model_price: Annotated[ModelPrice | None, NoDecode, BeforeValidator(_model_price)] = None
    models: tuple[ModelEntry, ...] = ()
    master_key: SecretStr | None = None  # drivers/secrets/envelope.py; unset: master.key in the home
    log: Annotated[str, BeforeValidator(_log_level)] = "WARNING"
    price_managed: Annotated[Decimal, BeforeValidator(_dollars)] = Decimal(30)  # dollars a month
    price_byok: Annotated[Decimal, BeforeValidator(_dollars)] = Decimal(20)  # dollars a month
    turn_deadline: float = Field(default=900.0, gt=0, le=86400)  # seconds
    runtime_memory: Size = Field(default=3 * 1024**3, ge=64 * 1024**2)  # bytes

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings  # the file comes in by load_settings, below the environment

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """Networks whose mail needs no SPF, DKIM or DMARC."""
        if self.mail_trust is not None:
            return self.mail_trust
        return LOOPBACK if self.domain == "localhost" or self.domain.endswith(".localhost") else ()

    @property
    def dns_zone_token(self) -> SecretStr | None:
        return self.dns_token or (self.hetzner_token if self.dns == "hetzner" else None)

    def model_choice(self) -> ModelChoice | None:
        """None where no key and no URL is set: the model is then our stand-in."""
        key = self.model_key.get_secret_value() if self.model_key else ""
        if self.model_url:
            api = (
                "anthropic-messages"
                if urlsplit(self.model_url).hostname == "api.anthropic.com"
                else "openai-completions"
            )
            return ModelChoice(api, self.model_url, key or "none", self.model or "main", "TINYFAT_MODEL_URL")
        for vendor in VENDORS:
            if vendor_key := os.environ.get(vendor.key_variable, ""):
                source = f"{vendor.name} ({vendor.key_variable})"
                return ModelChoice(vendor.api, vendor.url, vendor_key, self.model or vendor.model, source)
        if key:
            raise SettingsRefused("TINYFAT_MODEL_KEY is set but TINYFAT_MODEL_URL is not: say whose key it is.")
        return None

    def model_routes(self, standin_url: str, at: datetime) -> tuple[ModelRoute, ...]:
        """What the relay answers with: the table of models, else the one model that was chosen.

        Raises SettingsRefused for a model with no known price: here, and not on the invoice.
        """
        try:
            if self.models:
                return self._table(at)
            choice = self.model_choice()
            if choice is None:
                return (standin_route(standin_url, at),)
            for vendor in VENDORS:
                if choice.url == vendor.url and not self.model_price:
                    route = vendor_route(vendor, choice.model, at)
                    return (replace(route, key_variable=self._key_variable(choice)),)
        except RouteRefused as error:
            raise SettingsRefused(str(error)) from None
        return (self._own_model(choice),)

    def _table(self, at: datetime) -> tuple[ModelRoute, ...]:
        routes = routes_of(self.models, at)
        if not any(route.alias == MAIN for route in routes):
            raise RouteRefused(f"[[models]]: no entry has the alias {MAIN!r}, which every agent asks for.")
        return routes

    def _own_model(self, choice: ModelChoice) -> ModelRoute:
        """At the price the operator gives; without one, a model on this machine costs nothing a token, and what another
        one costs, nobody knows."""
        host = urlsplit(choice.url).hostname or ""
        local = host in ("localhost", "::1") or host.startswith("127.")
        if self.model_price:
            prices = own_price(self.model_price.input, self.model_price.output, "TINYFAT_MODEL_PRICE")
        elif local:
            prices = own_price(Decimal(0), Decimal(0), "TINYFAT_MODEL_URL on this machine")
        else:
            raise SettingsRefused(
                f"TINYFAT_MODEL_URL: no price is known of {choice.model!r} at {host}, so no call could be counted."
                " Set TINYFAT_MODEL_PRICE=INPUT/OUTPUT in dollars per million tokens, such as 0.30/1.20 (0/0 where it "
                "costs nothing), or describe the model as a [[models]] entry in tinyfat.toml (docs/settings.md)."
            )
        vendor = next((vendor.name.lower() for vendor in VENDORS if vendor.url == choice.url), host)
        return ModelRoute(MAIN, vendor, choice.model, choice.api, choice.url, self._key_variable(choice), prices)

    def _key_variable(self, choice: ModelChoice) -> str:
        if self.model_url:
            return "TINYFAT_MODEL_KEY" if self.model_key else ""
        return next(vendor.key_variable for vendor in VENDORS if vendor.url == choice.url)

    def vendor_keys(self, routes: Sequence[ModelRoute]) -> dict[str, str]:
        """Our keys for these routes, by the names of their variables; those that are set."""
        own = self.model_key.get_secret_value() if self.model_key else ""
        named = {route.key_variable for route in routes} - {""}
        keys = {name: own if name == "TINYFAT_MODEL_KEY" else os.environ.get(name, "") for name in named}
        return {name: key for name, key in keys.items() if key}


def load_settings() -> Settings:
    """Raises SettingsRefused, naming every setting that cannot be."""
    home = _folder(os.environ.get("TINYFAT_HOME") or _default_home())
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    file, elsewhere = home / FILE, Path(FILE).absolute()
    for name, value in _file_values(file).items():
        values[name], origin[name] = value, f"{file}: {name}"
    if elsewhere != file and elsewhere.is_file():
        log.warning("%s is not read: settings are the environment's, or in %s", elsewhere, file)
    unset = {name: value for name, value in values.items() if f"TINYFAT_{name.upper()}" not in os.environ}
    try:
        settings = Settings(**unset)
    except ValidationError as error:
        raise SettingsRefused("\n".join(_complaint(e, unset, origin) for e in error.errors())) from None
    if wrong := list(refusals(settings)):
        raise SettingsRefused("\n".join(wrong))
    settings.model_routes("http://127.0.0.1", datetime.now(UTC))
    return settings


def _file_values(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsRefused(f"{file} cannot be read: {error}") from None


def _complaint(error: Any, from_file: dict[str, Any], origin: dict[str, str]) -> str:
    name = str(error["loc"][0]).lower()
    place = origin[name] if name in from_file else f"TINYFAT_{name.upper()}"
    inner = "".join(f" {part}" for part in error["loc"][1:])  # of a table: which entry (from 0), which field
    if error["type"] == "extra_forbidden":
        return f"{place}{inner}: there is no such setting (docs/settings.md lists them)."
    return f"{place}{inner}: {complaint_words(error)}."
