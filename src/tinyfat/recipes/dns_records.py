"""What a domain's mail needs in the DNS, and how what is there compares with it. Pure.

MX: RFC 5321 section 5; SPF: RFC 7208; DKIM: RFC 6376 section 3.6.1; DMARC: RFC 7489.

No record is advised that could make our own replies fail. A smarthost rarely sends from the address at which it takes
mail, and only its provider knows from which: so SPF ends in ~all. DMARC is stricter than p=none only where replies are
DKIM-signed. MTA-STS needs a policy host, and none is served here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.recipes.zone_text import absolute, plain, quoted

MAIL_TTL_SECONDS = 3600

Answers = tuple[str, ...] | None  # values in our own form (domain/names); None: nobody answered


@dataclass(frozen=True, slots=True)
class MailTerms:
    """What the records are made from."""

    domain: str
    mail_host: str = ""  # who takes mail for the domain; "": mail.DOMAIN, and any that is there will do
    smarthost: str = ""  # a name or an address: who sends it; "": the mail host itself
    dkim_selector: str = ""
    dkim_public_key: str = ""  # base64 of the SubjectPublicKeyInfo; "": mail is not signed

    @property
    def exchange(self) -> str:
        return self.mail_host or f"mail.{self.domain}"


class Verdict(StrEnum):
    OK = "ok"
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "unknown"  # nobody answered


@dataclass(frozen=True, slots=True)
class MailRecord:
    """One that is wanted. `wrong` says what is wrong with the values that are there, "" for nothing."""

    what: str  # "MX", "SPF", ...
    wanted: RecordSet
    wrong: Callable[[Sequence[str]], str]

    def judged(self, answers: Answers) -> RecordFinding:
        mine = () if answers is None else tuple(one for one in answers if self._is_one(one))
        if answers is None:
            return RecordFinding(self, Verdict.UNKNOWN, (), "no nameserver answered")
        if not mine:
            return RecordFinding(self, Verdict.MISSING, (), "there is none")
        complaint = self.wrong(mine)
        return RecordFinding(self, Verdict.DIFFERENT if complaint else Verdict.OK, mine, complaint)

    def _is_one(self, value: str) -> bool:
        """A name may have TXT records of all kinds (RFC 7208 section 4.5: those of another version do not count)."""
        if self.wanted.kind is not RecordType.TXT or self.what == "DKIM":
            return True
        version = self.wanted.values[0].split(";")[0].split()[0].lower()
        first = value.replace(";", " ").split()
        return bool(first) and first[0].lower() == version


@dataclass(frozen=True, slots=True)
class RecordFinding:
    record: MailRecord
    verdict: Verdict
    found: tuple[str, ...]
    why: str = ""


def mail_records(terms: MailTerms) -> list[MailRecord]:
    """In the order in which they are best entered."""
    domain = plain(terms.domain)
    exchange = absolute(terms.exchange)
    records = [
        MailRecord("MX", _set(domain, RecordType.MX, f"10 {exchange}"), _mx_wrong(terms)),
        MailRecord("SPF", _txt(domain, _spf(terms)), _spf_wrong(terms)),
    ]
    if terms.dkim_public_key:
        name = f"{terms.dkim_selector}._domainkey.{domain}"
        records.append(MailRecord("DKIM", _txt(name, f"v=DKIM1; k=rsa; p={terms.dkim_public_key}"), _dkim_wrong(terms)))
    dmarc = f"v=DMARC1; p={'quarantine' if terms.dkim_public_key else 'none'}"
    return [*records, MailRecord("DMARC", _txt(f"_dmarc.{domain}", dmarc), _dmarc_wrong(terms))]


def zone_lines(records: RecordSet) -> list[str]:
    """As a zone file has them."""
    values = [quoted(value) if records.kind is RecordType.TXT else value for value in records.values]
    return [f"{absolute(records.name)} {records.ttl} IN {records.kind} {value}" for value in values]


# What is wrong with what is there.


def _mx_wrong(terms: MailTerms) -> Callable[[Sequence[str]], str]:
    def wrong(values: Sequence[str]) -> str:
        exchanges = [value.split()[-1] for value in values]
        if exchanges == ["."]:
            return "it says that the domain takes no mail (RFC 7505)"
        if terms.mail_host and absolute(terms.mail_host) not in exchanges:
            return f"mail goes to {', '.join(map(plain, exchanges))} and not to {terms.mail_host}"
        return ""

    return wrong


def _spf(terms: MailTerms) -> str:
    return " ".join(["v=spf1", "mx", *_spf_of(terms.smarthost), "~all"])


def _spf_of(smarthost: str) -> list[str]:
    if not smarthost:
        return []
    if ":" in smarthost:
        return [f"ip6:{smarthost}"]
    return [f"ip4:{smarthost}"] if smarthost.replace(".", "").isdigit() else [f"a:{smarthost}"]


def _spf_wrong(terms: MailTerms) -> Callable[[Sequence[str]], str]:
    def wrong(values: Sequence[str]) -> str:
        if len(values) > 1:
            return "there are several, which counts as none (RFC 7208 section 4.5): make them one"
        words = values[0].lower().split()[1:]
        elsewhere = any(word.lstrip("+").startswith(("include:", "redirect=")) for word in words)
        missing = [word for word in _spf_of(terms.smarthost) if word not in words and f"+{word}" not in words]
        if missing and not elsewhere:
            return f"it does not name the smarthost ({missing[0]})"
        if not any(word in ("-all", "~all") for word in words) and not any("redirect=" in word for word in words):
            return "it does not end in -all or ~all, so anybody may send in the domain's name"
        if "-all" in words and not elsewhere and any(word.startswith("a:") for word in _spf_of(terms.smarthost)):
            return (
                "it ends in -all, and names the smarthost where it takes mail, which is rarely where it sends from: "
                "replies may fail. Add the include: that its provider names, or write ~all"
            )
        return ""

    return wrong


def _dkim_wrong(terms: MailTerms) -> Callable[[Sequence[str]], str]:
    def wrong(values: Sequence[str]) -> str:
        if len(values) > 1:
            return "there are several records (RFC 6376 section 3.6.2.2): leave one"
        found = _tags(values[0])
        key = "".join(found.get("p", "").split())
        if not key:
            return "it holds no key: the selector is revoked"
        if key != terms.dkim_public_key:
            return "it holds another key than TINYFAT_DKIM_KEY"
        return "" if found.get("k", "rsa") == "rsa" else f"its key is of the type {found['k']}"

    return wrong


def _dmarc_wrong(terms: MailTerms) -> Callable[[Sequence[str]], str]:
    def wrong(values: Sequence[str]) -> str:
        if len(values) > 1:
            return "there are several, which counts as none (RFC 7489 section 6.6.3): leave one"
        match _tags(values[0]).get("p", "").lower():
            case "quarantine" | "reject" as policy if not terms.dkim_public_key:
                return f"p={policy}, and replies are not DKIM-signed: they fail wherever SPF alone does not prove them"
            case "none" if terms.dkim_public_key:
                return "p=none asks receivers to do nothing about forged mail"
            case "none" | "quarantine" | "reject":
                return ""
            case other:
                return f"p={other} is no policy"

    return wrong


def _tags(value: str) -> Mapping[str, str]:
    """Tag lists of DKIM, DMARC and their like (RFC 6376 section 3.2)."""
    pairs = (part.partition("=") for part in value.split(";") if "=" in part)
    return {key.strip().lower(): text.strip() for key, _, text in pairs}


def _set(name: str, kind: RecordType, value: str) -> RecordSet:
    return RecordSet(name, kind, (value,), MAIL_TTL_SECONDS)


def _txt(name: str, value: str) -> RecordSet:
    return _set(name, RecordType.TXT, value)
