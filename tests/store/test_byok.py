"""Owners' own keys: sealed for one agent and one vendor, rotated without touching them, nowhere in the clear."""

from __future__ import annotations

import logging
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.ledgers import Ledgers, ask, key_number
from tinyfat.domain.byok import VendorKeyRefused, vendor_key
from tinyfat.domain.relay_keys import key_hash
from tinyfat.drivers.secrets.envelope import EnvelopeSecrets, MasterKeyRefused, new_master_keys
from tinyfat.drivers.secrets.master_key import kept_master_keys, rotate_master_keys
from tinyfat.ports.ledger import NotFound
from tinyfat.ports.secrets import Unopenable
from tinyfat.ports.usage import Held
from tinyfat.store.byok import ByokStore

PLANTED = "sk-ant-api03-PLANTED-7f3a9c51d2e84b6fa0"


def _store(ledgers: Ledgers, masters: str) -> ByokStore:
    return ByokStore(ledgers.database, EnvelopeSecrets(masters))


async def test_put_listed_opened_replaced_cleared(ledgers: Ledgers) -> None:
    agent_id, key = await ledgers.agent()
    store = _store(ledgers, new_master_keys(""))
    await store.put(agent_id, "openai", vendor_key("openai", "sk-old-000000000000000000"))
    known = await store.put(agent_id, "anthropic", vendor_key("anthropic", f" {PLANTED}\n"))
    assert (known.vendor, known.hint, known.key_version) == ("anthropic", "6fa0", 1)
    assert (await store.open(agent_id, "anthropic")).value == PLANTED
    await store.put(agent_id, "openai", vendor_key("openai", "sk-new-000000000000000000"))
    assert (await store.open(agent_id, "openai")).value.startswith("sk-new")
    assert [k.vendor for k in await store.list(agent_id)] == ["anthropic", "openai"]
    verdicts = await ledgers.first.reserve([ask(key, table_vendor="anthropic"), ask(key, table_vendor="fireworks")])
    assert [v.byok_vendor for v in verdicts if isinstance(v, Held)] == ["anthropic", "openai"]  # the newest
    assert await store.clear(agent_id, "openai") and not await store.clear(agent_id, "openai")
    await store.clear(agent_id, "anthropic")
    [verdict] = await ledgers.first.reserve([ask(key, table_vendor="anthropic")])
    assert isinstance(verdict, Held) and verdict.byok_vendor == ""
    with pytest.raises(NotFound):
        await store.open(agent_id, "anthropic")
    assert await store.key(agent_id, "anthropic") is None
    await store.put(agent_id, "anthropic", vendor_key("anthropic", PLANTED))
    assert await store.key(agent_id, "anthropic") == PLANTED


async def test_a_row_opens_in_no_others_place(ledgers: Ledgers) -> None:
    one, _ = await ledgers.agent()
    other, _ = await ledgers.agent()
    store = _store(ledgers, new_master_keys(""))
    await store.put(one, "openai", vendor_key("openai", PLANTED))
    await store.put(other, "openai", vendor_key("openai", "sk-another-0000000000000"))
    copy = "update byok_keys set {} from byok_keys o where byok_keys.agent_id = %s and o.agent_id = %s"
    for columns in (
        "wrapped_key = o.wrapped_key, ciphertext = o.ciphertext", "ciphertext = o.ciphertext",
    ):  # fmt: skip
        await ledgers.rows(copy.format(columns), other, one)
        with pytest.raises(Unopenable):
            await store.open(other, "openai")
    await ledgers.rows("update byok_keys set vendor = 'anthropic' where agent_id = %s", one)
    with pytest.raises(Unopenable):
        await store.open(one, "anthropic")


async def test_rotation_wraps_anew_and_touches_no_ciphertext(ledgers: Ledgers, tmp_path: Path) -> None:
    agent_id, _ = await ledgers.agent()
    file = tmp_path / "master.key"
    old = kept_master_keys(file)
    assert file.stat().st_mode & 0o777 == 0o600 and kept_master_keys(file) == old
    await _store(ledgers, old).put(agent_id, "openai", vendor_key("openai", PLANTED))
    before = await ledgers.rows("select ciphertext, wrapped_key, key_version from byok_keys")
    both = rotate_master_keys(file)
    store = _store(ledgers, both)
    assert (await store.open(agent_id, "openai")).value == PLANTED  # before the rows are wrapped anew, too
    assert await store.rewrap() == 1 and await store.rewrap() == 0
    after = await ledgers.rows("select ciphertext, wrapped_key, key_version from byok_keys")
    assert after[0][0] == before[0][0] and after[0][1] != before[0][1] and (before[0][2], after[0][2]) == (1, 2)
    newest_only = both.splitlines()[0]
    assert (await _store(ledgers, newest_only).open(agent_id, "openai")).value == PLANTED
    with pytest.raises(Unopenable, match="version 2"):
        await _store(ledgers, old).open(agent_id, "openai")


async def test_no_key_is_anywhere_in_the_clear(ledgers: Ledgers, caplog: pytest.LogCaptureFixture) -> None:
    """Every column of every table as text, every log line, every repr; the master and data keys too."""
    caplog.set_level(logging.DEBUG)
    agent_id, _ = await ledgers.agent()
    masters, made = new_master_keys(""), list[bytes]()

    def random(count: int) -> bytes:
        made.append(len(made).to_bytes(1, "big") * count)
        return made[-1]

    envelopes = EnvelopeSecrets(masters, random)
    store = ByokStore(ledgers.database, envelopes)
    own, key = vendor_key("openai", PLANTED), key_number(77)
    await store.put(agent_id, "openai", own)
    await ledgers.keys.add(agent_id, key, "laptop")
    await ledgers.first.reserve([ask(key)])
    opened = await store.open(agent_id, "openai")
    text = "\n".join(await _dump(ledgers)) + caplog.text + repr((own, str(own), opened, envelopes, store))
    secrets = [PLANTED, PLANTED.encode().hex(), key, masters.strip().split(":")[1], made[0].hex()]
    assert [secret for secret in secrets if secret in text] == []
    assert "laptop" in text and key_hash(key).hex() in text, "the dump shows nothing: this test cannot fail"


async def _dump(ledgers: Ledgers) -> list[str]:
    tables = await ledgers.rows("select tablename from pg_tables where schemaname = 'public'")
    return [str(row[0]) for (table,) in tables for row in await ledgers.rows(f"select t::text from {table} t")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sk-ant-oat01-abc", "subscription"),
        ("  sk-ant-oat02-abc\n", "subscription"),
        ("", "one line"),
        ("two words", "one line"),
        ("schlüssel", "one line"),
        ("a\x00b", "one line"),
        ("x" * 1001, "one line"),
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str, reason: str) -> None:
    with pytest.raises(VendorKeyRefused, match=reason) as refused:
        vendor_key("anthropic", text)
    assert not text.strip() or text.strip() not in str(refused.value)


@pytest.mark.parametrize("text", ["", "1:abc", "0:" + "0" * 64, "x", f"1:{'0' * 64},1:{'1' * 64}", "0" * 64])
def test_a_master_key_that_cannot_be_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(MasterKeyRefused) as refused:
        EnvelopeSecrets(text)
    assert len(text) < 3 or text not in str(refused.value)


def test_a_master_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    kept_master_keys(file)
    file.chmod(0o640)
    with pytest.raises(MasterKeyRefused, match="chmod 600"):
        kept_master_keys(file)


_MASTERS = new_master_keys(new_master_keys(""))


@given(st.binary(max_size=300), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_only_the_same_tenant_and_purpose_open(plain: bytes, one: str, purpose: str, other: str, another: str) -> None:
    envelopes = EnvelopeSecrets(_MASTERS)
    try:
        sealed = envelopes.seal(plain, one, purpose)
    except UnicodeEncodeError:
        return
    assert envelopes.open(sealed, one, purpose) == plain
    if (other, another) != (one, purpose):
        with pytest.raises((Unopenable, UnicodeEncodeError)):
            envelopes.open(sealed, other, another)


async def test_a_key_needs_a_budget_to_hang_on(ledgers: Ledgers) -> None:
    agent_id, _ = await ledgers.agent(None)
    with pytest.raises(NotFound):
        await _store(ledgers, new_master_keys("")).put(agent_id, "openai", vendor_key("openai", PLANTED))
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await ledgers.rows(
            "insert into byok_keys (agent_id, vendor, key_version, wrapped_key, ciphertext, hint) "
            "values (gen_random_uuid(), 'x', 1, '', '', '')"
        )
