"""SPF (RFC 7208) with our own DNS under pyspf."""

from __future__ import annotations

import ipaddress
import threading
import warnings

from tinyfat.drivers.mail.dns_lookups import TXT_BYTES_MAX, Lookups, LookupsSpent, TemporaryDnsError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import spf

_KINDS = frozenset(("A", "AAAA", "MX", "PTR", "TXT"))
_ours = threading.local()  # .lookups: those of the check this thread is doing


def _dns_lookup(name: str, kind: str, strict: bool = True, timeout: float = 0) -> list[tuple[tuple[str, str], object]]:
    """pyspf's one function for DNS. It is a global of its module, hence the thread's own `lookups`."""
    if kind not in _KINDS:
        return []
    lookups: Lookups = _ours.lookups
    try:
        values = lookups.values(name, kind)
    except TemporaryDnsError as error:
        raise spf.TempError(str(error)) from error
    except LookupsSpent as error:  # RFC 7208 4.6.4: as with its own, smaller limits
        raise spf.PermError(str(error)) from error
    return [((name, kind), value) for value in values if not _overlong(value)]


def _overlong(value: object) -> bool:
    return isinstance(value, tuple) and sum(len(one) for one in value if isinstance(one, bytes)) > TXT_BYTES_MAX


spf.DNSLookup = _dns_lookup


def spf_result(client_ip: str, mail_from: str, helo: str, lookups: Lookups) -> str:
    """RFC 7208 2.6: "pass", "fail", "softfail", "neutral", "none", "permerror" or "temperror".

    `mail_from` must be a plain address, or "" for the null return path: then the HELO name is checked (2.3).
    """
    try:
        address = str(ipaddress.ip_address(client_ip))
    except ValueError:
        return "none"
    _ours.lookups = lookups
    try:
        result, _, _ = spf.query(i=address, s=mail_from, h=helo).check()
    except Exception:  # a record made to break pyspf is a broken record
        return "permerror"
    finally:
        del _ours.lookups
    return str(result)
