"""Credentials: sealed in the database, opened only by who has the key, never shown."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from server.batching import audit
from server.batching.imports import vault as module
from server.batching.imports.provider import Check, CredentialId, Provider, Terms
from server.batching.imports.vault import Credential, Sealer, Vault
from server.core.identity import Identity
from server.core.member import AuthFailed, Retryable
from server.edge.clock import VirtualClock
from server.edge.postgres import Database
from server.errors import Code, Refused, StartRefused, Unavailable
from tests.doubles.members import FORBIDDEN, GOOD, Members

OLD = SecretStr("the old key of the environment, long enough")
NEW = SecretStr("the new key of the environment, long enough")
VALUE = "whop_a-very-secret-value"
OTHER = "whop_another-secret-value"
NOBODYS = CredentialId(999)
ADA, BEN, EVE = Identity("ada"), Identity("ben"), Identity("eve")
ADMIN = Identity("root", frozenset(["admin"]))


def sealer(current: SecretStr = OLD, previous: SecretStr | None = None) -> Sealer:
    made = Sealer.of(current, previous)
    assert made is not None
    return made


@pytest.fixture
def vault(db: Database) -> Vault:
    return Vault(db, sealer())


async def added(vault: Vault, who: Identity, account: str, value: str = VALUE) -> Credential:
    return (await vault.add(who, account, "whop", value)).credential


def row(sealed_by: Sealer, owner: str = "ada", account: str = "biz_1") -> Credential:
    return Credential(CredentialId(1), owner, account, "whop", sealed_by.key_id, 0, None, None, None)


def says(check: Check) -> Callable[[CredentialId, str, SecretStr], Awaitable[Check]]:
    async def ask(credential: CredentialId, account: str, key: SecretStr) -> Check:
        return check

    return ask


async def dump(db: Database) -> str:
    """Everything that the table holds, as a thief of a backup would read it."""
    async with db.connection() as connection:
        rows = await connection.fetch("select *, encode(sealed, 'escape') as text from imports.credentials order by id")
    return str([dict(one) for one in rows])


# --- sealing ---


@pytest.mark.pure
def test_what_is_sealed_opens_and_no_two_seals_are_alike() -> None:
    one = sealer()
    first, second = (one.seal("ada", "biz_1", "whop", SecretStr(VALUE)) for _ in range(2))
    assert first != second
    assert VALUE.encode() not in first
    assert one.open(row(one), first).get_secret_value() == VALUE


@pytest.mark.pure
@pytest.mark.parametrize(("owner", "account"), [("eve", "biz_1"), ("ada", "biz_2"), ("adab", "iz_1")])
def test_a_seal_that_is_moved_to_another_row_does_not_open_there(owner: str, account: str) -> None:
    one = sealer()
    sealed = one.seal("ada", "biz_1", "whop", SecretStr(VALUE))
    with pytest.raises(AuthFailed, match="damaged"):
        one.open(row(one, owner, account), sealed)


@pytest.mark.pure
@pytest.mark.parametrize("at", [0, 1, 14, -1])
def test_a_seal_with_one_bit_changed_does_not_open(at: int) -> None:
    one = sealer()
    sealed = bytearray(one.seal("ada", "biz_1", "whop", SecretStr(VALUE)))
    sealed[at] ^= 1
    for damaged in (bytes(sealed), b"", bytes(sealed[:5])):
        with pytest.raises(AuthFailed, match="damaged"):
            one.open(row(one), damaged)


@pytest.mark.pure
def test_another_key_does_not_open_and_the_error_says_which_one_is_missing() -> None:
    old = sealer()
    with pytest.raises(AuthFailed, match=old.key_id):
        sealer(NEW).open(row(old), old.seal("ada", "biz_1", "whop", SecretStr(VALUE)))


@pytest.mark.pure
def test_the_previous_key_still_opens_but_the_present_one_seals() -> None:
    old, both = sealer(), sealer(NEW, OLD)
    sealed = old.seal("ada", "biz_1", "whop", SecretStr(VALUE))
    assert both.open(row(old), sealed).get_secret_value() == VALUE
    assert both.key_id == sealer(NEW).key_id != old.key_id


@pytest.mark.pure
def test_keys_that_are_too_short_or_missing_are_refused_without_being_shown() -> None:
    short = SecretStr("too short a key")
    for current, previous in ((short, None), (NEW, short), (None, OLD)):
        with pytest.raises(StartRefused, match="IMPORTS_KEY") as refused:
            Sealer.of(current, previous)
        assert "too short a key" not in str(refused.value)
    assert Sealer.of(None) is None


@pytest.mark.pure
def test_a_sealer_shows_no_key() -> None:
    told = repr(sealer(NEW, OLD)) + str(sealer(NEW, OLD)) + repr(sealer(NEW, OLD).__dict__)
    assert OLD.get_secret_value() not in told
    assert NEW.get_secret_value() not in told


# --- keeping ---


async def test_a_key_is_kept_sealed_and_given_only_to_who_asks_the_provider(db: Database, vault: Vault) -> None:
    kept = await added(vault, ADA, "biz_1", f" {VALUE}\n")
    assert (kept.owner, kept.account, kept.provider, kept.rotated_ms, kept.checked_ms) == (
        *("ada", "biz_1", "whop"),
        *(None, None),
    )
    assert (await vault.key(kept.id)).get_secret_value() == VALUE
    assert VALUE not in await dump(db)


async def test_owners_list_their_own_and_an_admin_all(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, account in ((ADA, "biz_1"), (BEN, "biz_1"), (ADA, "biz_2")):
        await vault.add(owner, account, "whop", VALUE)
    assert [one.account for one in await vault.listed(ADA)] == ["biz_1", "biz_2"]
    assert await vault.listed(EVE) == []
    monkeypatch.setattr(module, "LISTED_MOST", 2)
    first = await vault.listed(ADMIN)
    assert [one.owner for one in first] == ["ada", "ben"]
    assert [one.account for one in await vault.listed(ADMIN, first[-1].id)] == ["biz_2"]


async def test_a_second_key_for_the_same_account_is_a_conflict(vault: Vault) -> None:
    await vault.add(ADA, "biz_1", "whop", VALUE)
    with pytest.raises(Refused, match="rotate") as refused:
        await vault.add(ADA, "biz_1", "whop", OTHER)
    assert refused.value.code == Code.CONFLICT


@pytest.mark.parametrize(
    ("owner", "account", "provider", "value", "field"),
    [
        ("ada", "biz_1", "whop", "short", "key"),
        ("ada", "biz_1", "whop", "has a blank inside", "key"),
        ("ada", "biz_1", "whop", "line\r\nX-Evil: 1", "key"),
        ("ada", "biz_1", "whop", "smörgåsbord", "key"),
        ("ada", "biz_1", "whop", "x" * 4097, "key"),
        ("ada", "biz_1", "patreon", VALUE, "provider"),
        ("ada", "", "whop", VALUE, "account"),
        ("ada", "biz\0", "whop", VALUE, "account"),
        ("", "biz_1", "whop", VALUE, None),
        ("\0", "biz_1", "whop", VALUE, "owner"),
    ],
)
async def test_what_cannot_be_a_credential_is_refused_without_repeating_the_key(
    vault: Vault, owner: str, account: str, provider: str, value: str, field: str | None
) -> None:
    with pytest.raises(Refused) as refused:
        await vault.add(Identity(owner), account, provider, value)
    assert refused.value.field == field
    assert value not in str(refused.value)


async def test_rotating_replaces_the_key_and_forgets_what_was_said_of_the_old_one(vault: Vault) -> None:
    kept = await added(vault, ADA, "biz_1", VALUE)
    await vault.check(ADA, kept.id, says(Check(True, True, "fine")))
    rotated = (await vault.rotate(ADA, kept.id, OTHER)).credential
    assert (await vault.key(kept.id)).get_secret_value() == OTHER
    assert rotated.rotated_ms is not None
    assert (rotated.checked_ms, rotated.check_result) == (None, None)


async def test_a_removed_key_is_gone_and_a_job_that_needs_it_is_told(vault: Vault) -> None:
    kept = await added(vault, ADA, "biz_1", VALUE)
    await vault.remove(ADA, kept.id)
    assert await vault.listed(ADMIN) == []
    with pytest.raises(AuthFailed, match="removed"):
        await vault.key(kept.id)


async def test_nobody_touches_what_is_anothers_but_an_admin_does(vault: Vault) -> None:
    kept = await added(vault, ADA, "biz_1", VALUE)
    for verb in (
        lambda owner, id: vault.rotate(owner, id, OTHER),
        lambda owner, id: vault.check(owner, id, says(Check(True, True, "fine"))),
        lambda owner, id: vault.remove(owner, id),
    ):
        for owner, credential in ((EVE, kept.id), (ADA, NOBODYS), (ADMIN, NOBODYS)):
            with pytest.raises(Refused) as refused:
                await verb(owner, credential)
            assert refused.value.code == Code.NOT_FOUND
    assert (await vault.key(kept.id)).get_secret_value() == VALUE
    await vault.rotate(ADMIN, kept.id, OTHER)
    await vault.remove(ADMIN, kept.id)


async def test_without_a_key_in_the_environment_credentials_are_listed_but_not_kept_or_used(
    db: Database, vault: Vault
) -> None:
    kept = await added(vault, ADA, "biz_1", VALUE)
    unkeyed = Vault(db, None)
    for asked in (
        unkeyed.add(ADA, "biz_2", "whop", VALUE),
        unkeyed.rotate(ADA, kept.id, OTHER),
        unkeyed.check(ADA, kept.id, says(Check(True, True, "fine"))),
        unkeyed.reseal(),
    ):
        with pytest.raises(Unavailable, match="IMPORTS_KEY"):
            await asked
    with pytest.raises(Retryable, match="IMPORTS_KEY"):
        await unkeyed.key(kept.id)
    assert len(await unkeyed.listed(ADA)) == 1
    await unkeyed.remove(ADA, kept.id)


async def test_a_change_of_a_key_and_its_entry_in_the_audit_trail_are_one(db: Database, vault: Vault) -> None:
    kept = await vault.add(ADA, "biz_1", "whop", VALUE)
    number = kept.credential.id
    ids = [kept.audit_id, (await vault.rotate(ADA, number, OTHER)).audit_id]
    ids.append((await vault.check(ADMIN, number, says(Check(True, True, "fine")))).audit_id)
    async with db.connection() as connection:
        entries = await audit.page(connection, audit.Search(target=f"credential {number}"))
        await connection.execute("revoke insert on ops.audit from batchcast_worker")
    assert [one.id for one in entries] == ids[::-1]
    assert [(one.who, one.action) for one in entries] == [
        ("root", "credential-check"),
        ("ada", "credential-rotate"),
        ("ada", "credential-add"),
    ]
    assert not [one for one in entries if VALUE in repr(one) or OTHER in repr(one)]
    for asking in (
        vault.add(ADA, "biz_2", "whop", VALUE),
        vault.rotate(ADA, number, VALUE),
        vault.remove(ADA, number),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asking
    assert [one.account for one in await vault.listed(ADMIN)] == ["biz_1"]
    assert (await vault.key(number)).get_secret_value() == OTHER


# --- checking ---


async def test_a_check_asks_the_provider_and_its_answer_is_kept(vault: Vault) -> None:
    good = await added(vault, ADA, "biz_1", GOOD)
    bad = await added(vault, ADA, "biz_2", FORBIDDEN)
    async with Members(members=30) as double:
        provider = await Provider.open(Terms(url=double.url), VirtualClock())
        try:
            assert (await vault.check(ADA, good.id, provider.check)).check.ok
            assert not (await vault.check(ADA, bad.id, provider.check)).check.ok
        finally:
            await provider.close()
    first, second = await vault.listed(ADA)
    assert first.checked_ms is not None
    assert "valid" in (first.check_result or "")
    assert "403" in (second.check_result or "")


async def test_a_key_that_does_not_open_is_a_check_that_failed(db: Database, vault: Vault) -> None:
    kept = await added(vault, ADA, "biz_1", VALUE)
    check = (await Vault(db, sealer(NEW)).check(ADA, kept.id, says(Check(True, True, "fine")))).check
    assert not check.ok
    assert "IMPORTS_KEY_PREVIOUS" in ((await vault.listed(ADA))[0].check_result or "")


async def test_what_is_said_of_a_key_that_was_replaced_meanwhile_is_not_kept(vault: Vault) -> None:
    kept = await added(vault, ADA, "biz_1", VALUE)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(credential: CredentialId, account: str, key: SecretStr) -> Check:
        asked.set()
        await go_on.wait()
        return Check(False, None, "the old one is void")

    async with asyncio.TaskGroup() as group:
        group.create_task(vault.check(ADA, kept.id, slowly))
        await asked.wait()
        await vault.rotate(ADA, kept.id, OTHER)
        go_on.set()
    assert (await vault.listed(ADA))[0].check_result is None


# --- changing the key of the environment ---


async def test_resealing_moves_all_to_the_new_key_slice_by_slice(
    db: Database, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESEAL_ROWS", 2)
    ids = [(await added(vault, ADA, f"biz_{n}", f"{VALUE}-{n}")).id for n in range(5)]
    both, moved, after = Vault(db, sealer(NEW, OLD)), 0, 0
    while True:
        turn = await both.reseal(after)
        moved += turn.moved
        assert turn.lost == 0
        if turn.after is None:
            break
        after = turn.after
    assert moved == 5
    assert (await both.reseal()).moved == 0
    alone = Vault(db, sealer(NEW))
    assert [(await alone.key(id)).get_secret_value() for id in ids] == [f"{VALUE}-{n}" for n in range(5)]
    assert {one.rotated_ms for one in await alone.listed(ADA)} == {None}


async def test_resealing_counts_what_no_key_opens_and_moves_the_rest(db: Database, vault: Vault) -> None:
    lost = await added(Vault(db, sealer(SecretStr("a key that nobody remembers any more"))), EVE, "biz_9")
    kept = await added(vault, ADA, "biz_1", VALUE)
    both = Vault(db, sealer(NEW, OLD))
    assert await both.reseal() == module.Resealed(1, 1, None)
    assert (await both.key(kept.id)).get_secret_value() == VALUE
    with pytest.raises(AuthFailed):
        await both.key(lost.id)


async def test_a_rotation_in_the_midst_of_resealing_is_not_undone(db: Database, vault: Vault) -> None:
    kept = await added(vault, ADA, "biz_1", VALUE)
    new = sealer(NEW)
    both = Vault(db, sealer(NEW, OLD))
    async with asyncio.TaskGroup() as group, db.transaction() as rotating:
        sealed = new.seal("ada", "biz_1", "whop", SecretStr(OTHER))
        await rotating.execute(module.ROTATE, kept.id, sealed, new.key_id)
        resealing = group.create_task(both.reseal())
        await until_somebody_waits_for_a_lock(db)
    assert resealing.result().moved == 0
    assert (await both.key(kept.id)).get_secret_value() == OTHER


async def until_somebody_waits_for_a_lock(db: Database) -> None:
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    async with asyncio.timeout(20), db.connection() as connection:
        while not await connection.fetchval(waiting):
            await asyncio.sleep(0.005)


# --- the value stays unseen ---


async def test_no_value_is_in_any_log_line_error_or_repr(db: Database, vault: Vault) -> None:
    told: list[str] = []
    with capture_logs() as lines:
        kept = await added(vault, ADA, "biz_1", VALUE)
        told += [repr(kept), repr(await vault.listed(ADMIN)), repr(await vault.rotate(ADA, kept.id, VALUE))]
        told += [repr(vault), repr(await vault.key(kept.id)), repr(await Vault(db, sealer(NEW)).reseal())]
        for asked in (vault.add(ADA, "biz_1", "whop", VALUE), Vault(db, sealer(NEW)).key(kept.id)):
            with pytest.raises((Refused, AuthFailed)) as caught:
                await asked
            told += [repr(caught.value), repr(caught.value.__dict__), *traceback.format_exception(caught.value)]
        await vault.remove(ADA, kept.id)
    told += [str(lines)]
    assert [line["event"] for line in lines] == [
        *("credential added", "credential rotated", "credential lost", "credential removed"),
    ]
    assert not [text for text in told if VALUE in text]


async def test_an_owners_role_reads_its_own_rows_without_what_is_sealed(db: Database, vault: Vault) -> None:
    await vault.add(ADA, "biz_1", "whop", VALUE)
    await vault.add(BEN, "biz_1", "whop", VALUE)
    async with db.transaction() as connection:
        await connection.execute("set local role batchcast_owner")
        await connection.execute("select set_config('batchcast.owner', 'ada', true)")
        assert [one["owner"] for one in await connection.fetch("select owner from imports.credentials")] == ["ada"]
        with pytest.raises(Exception, match="permission denied"):
            await connection.fetch("select sealed from imports.credentials")
