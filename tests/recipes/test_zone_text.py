"""Values as zone files write them, against dnspython's own reading of them."""

from __future__ import annotations

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.recipes.zone_text import canonical, canonical_set, quoted, unquoted


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=600))
def test_a_text_comes_back_as_it_was(text: str) -> None:
    assert unquoted(quoted(text)) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=600))
def test_a_server_reads_the_same_text_out_of_it(text: str) -> None:
    read = dns.rdata.from_text("IN", "TXT", quoted(text))
    assert b"".join(read.strings).decode() == text
    assert all(len(string) <= 255 for string in read.strings)


@given(st.text(max_size=200))
def test_whatever_a_vendor_says_can_be_read(written: str) -> None:
    assert isinstance(unquoted(written), str)


def test_text_without_quotes_is_taken_as_it_is() -> None:
    assert unquoted("v=spf1 mx -all") == "v=spf1 mx -all"
    assert unquoted('"v=spf1" " mx -all"') == "v=spf1 mx -all"
    assert unquoted('"say \\"hi\\" \\\\ \\195\\164"') == 'say "hi" \\ ä'


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (RecordType.A, "192.0.2.1", "192.0.2.1"),
        (RecordType.AAAA, "2001:DB8:0::1", "2001:db8::1"),
        (RecordType.CNAME, "Ada.Example.ORG", "ada.example.org."),
        (RecordType.MX, "10  Mail.Example.org.", "10 mail.example.org."),
        (RecordType.TXT, "Text As It Is ", "Text As It Is "),
    ],
)
def test_each_kind_has_one_way_to_be_written(kind: RecordType, value: str, wanted: str) -> None:
    assert canonical(kind, value) == wanted
    assert canonical(kind, wanted) == wanted


@pytest.mark.parametrize(
    ("kind", "value"), [(RecordType.A, "2001:db8::1"), (RecordType.AAAA, "192.0.2.1"), (RecordType.MX, "mail.org")]
)
def test_what_is_none_of_its_kind_is_refused(kind: RecordType, value: str) -> None:
    with pytest.raises(ValueError):
        canonical_set(RecordSet("ada.example.org", kind, (value,)))


def test_a_set_has_each_value_once_in_order() -> None:
    found = canonical_set(
        RecordSet("Ada.Example.org.", RecordType.AAAA, ("2001:db8::2", "2001:db8:0::1", "2001:db8::1"))
    )
    assert found == RecordSet("ada.example.org", RecordType.AAAA, ("2001:db8::1", "2001:db8::2"))
