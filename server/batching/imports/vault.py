"""Credentials of the membership provider: sealed at rest, opened only to ask the provider, never shown again.

    sealer = Sealer.of(IMPORTS_KEY, IMPORTS_KEY_PREVIOUS)          None when no key is set: credentials can't be kept then
    vault = Vault(db, sealer)
    await vault.add(who, account, provider, value)                 rotate, remove, listed, check: the verbs of their owner
    await vault.key(id)                                            for workers; AuthFailed says why there is none
    await vault.reseal()                                           a turn's slice after IMPORTS_KEY was changed

A value is sealed by AES-256-GCM under a key derived (HKDF) from IMPORTS_KEY, together with its owner, account and provider:
a sealed value that is moved to another row does not open there. `key_id` names the key, and cannot be turned back into it.

Changing IMPORTS_KEY: the old one becomes IMPORTS_KEY_PREVIOUS and still opens; `reseal` moves row by row to the new one and
says how many are left; then the old one may be forgotten. Rotating a credential replaces the provider's key itself.

Every statement runs under the service's role: no owner's role may read or write what is sealed, so whose a credential is
is asked in each of them (an admin may touch all). A change and its entry in the audit trail are one transaction. A value is a
SecretStr from the moment it is known to be well-formed; no error, log line, repr or audit entry holds it.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg
import orjson
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from server.batching import audit
from server.batching.imports.provider import Check, CredentialId
from server.core.identity import Identity
from server.core.member import AuthFailed, Retryable
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused, StartRefused, Unavailable

KEY_LEAST: Final = 32
"""Bytes of IMPORTS_KEY: what `openssl rand -base64 48` gives is longer."""
VALUE_LEAST: Final = 8
VALUE_MOST: Final = 4_096
NAME_MOST: Final = 128
LISTED_MOST: Final = 1_000
"""Credentials in one answer; the next ones are asked for with the last id."""
RESEAL_ROWS: Final = 100
PROVIDERS: Final = ("whop",)
UNKEYED: Final = (
    "credentials cannot be kept or used: IMPORTS_KEY is not set. Make one with `openssl rand -base64 48`, set it for every "
    "node and restart"
)

_FORMAT: Final = b"\x01"
_NONCE_BYTES: Final = 12
_VALUE: Final = re.compile(r"[\x21-\x7e]+")

AS_SERVICE: Final = "set local role batchcast_worker"
_PUBLIC: Final = """id, owner, account, provider, key_id,
    floor(extract(epoch from created_at) * 1000)::bigint as created_ms,
    floor(extract(epoch from rotated_at) * 1000)::bigint as rotated_ms,
    floor(extract(epoch from checked_at) * 1000)::bigint as checked_ms, check_result"""
_MINE: Final = "id = $1 and ($2::text is null or owner = $2)"
ADD: Final = f"""
insert into imports.credentials (owner, account, provider, sealed, key_id) values ($1, $2, $3, $4, $5)
returning {_PUBLIC}"""  # noqa: S608  names are ours
LIST: Final = f"""
select {_PUBLIC} from imports.credentials
where ($1::text is null or owner = $1) and id > $2 order by id limit $3"""  # noqa: S608  names are ours
READ: Final = f"select {_PUBLIC}, sealed from imports.credentials where {_MINE}"  # noqa: S608  names are ours
LOCK: Final = f"{READ} for update"
ROTATE: Final = f"""
update imports.credentials
set sealed = $2, key_id = $3, rotated_at = clock_timestamp(), checked_at = null, check_result = null
where id = $1 returning {_PUBLIC}"""  # noqa: S608  names are ours
REMOVE: Final = f"delete from imports.credentials where {_MINE} returning {_PUBLIC}"  # noqa: S608  names are ours
CHECKED: Final = f"""
update imports.credentials set checked_at = clock_timestamp(), check_result = $3
where id = $1 and sealed = $2 returning {_PUBLIC}"""  # noqa: S608  names are ours
STALE: Final = f"""
select {_PUBLIC}, sealed from imports.credentials
where key_id <> $1 and id > $2 order by id limit $3 for update"""  # noqa: S608  names are ours
RESEAL: Final = """
update imports.credentials c set sealed = r.sealed, key_id = $3
from unnest($1::bigint[], $2::bytea[]) as r (id, sealed) where c.id = r.id"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Credential:
    """What may be shown of a credential."""

    id: CredentialId
    owner: str
    account: str
    provider: str
    key_id: str
    created_ms: int
    rotated_ms: int | None
    checked_ms: int | None
    check_result: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A credential as it is now, and the audit entry of the change."""

    credential: Credential
    audit_id: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What the provider said of a key, and the audit entry of the question."""

    check: Check
    audit_id: int


@dataclass(frozen=True, slots=True)
class Resealed:
    """One slice of moving to the new key: `after` is where the next one begins, None when there is none."""

    moved: int
    lost: int
    """Sealed with a key that is neither the present nor the previous one."""
    after: int | None


class Sealer:
    """Seals with the present key, opens with it and the previous one."""

    def __init__(self, current: bytes, previous: bytes | None = None) -> None:
        self.key_id = _key_id(current)
        secrets = [secret for secret in (previous, current) if secret is not None]
        self._ciphers = {_key_id(secret): AESGCM(_derived(secret, b"seal")) for secret in secrets}

    @classmethod
    def of(cls, current: SecretStr | None, previous: SecretStr | None = None) -> Sealer | None:
        """From the settings IMPORTS_KEY and IMPORTS_KEY_PREVIOUS; StartRefused when they can't be used."""
        if current is None:
            if previous is not None:
                raise StartRefused("IMPORTS_KEY_PREVIOUS is set without IMPORTS_KEY; set the new key as IMPORTS_KEY.")
            return None
        before = None if previous is None else _material("IMPORTS_KEY_PREVIOUS", previous)
        return cls(_material("IMPORTS_KEY", current), before)

    def __repr__(self) -> str:
        return f"Sealer({self.key_id})"

    def seal(self, owner: str, account: str, provider: str, value: SecretStr) -> bytes:
        """The value under the present key; the nonce comes from the operating system, never from the Clock."""
        nonce = os.urandom(_NONCE_BYTES)
        text = value.get_secret_value().encode()
        return _FORMAT + nonce + self._ciphers[self.key_id].encrypt(nonce, text, _bound(owner, account, provider))

    def open(self, credential: Credential, sealed: bytes) -> SecretStr:
        """The value; AuthFailed when the key is not at hand or the row was tampered with."""
        cipher = self._ciphers.get(credential.key_id)
        if cipher is None:
            raise AuthFailed(
                f"credential {credential.id} was sealed with another IMPORTS_KEY ({credential.key_id}): set that one as "
                "IMPORTS_KEY_PREVIOUS, or rotate the credential"
            )
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        bound = _bound(credential.owner, credential.account, credential.provider)
        try:
            if not sealed.startswith(_FORMAT):
                raise ValueError("a format of a newer version")
            return SecretStr(cipher.decrypt(nonce, body, bound).decode())
        except (InvalidTag, ValueError):
            raise AuthFailed(
                f"credential {credential.id} is damaged, or was copied from another row: rotate it"
            ) from None


class Vault:
    """The credentials in PostgreSQL."""

    def __init__(self, db: Database, sealer: Sealer | None) -> None:
        self._db = db
        self._sealer = sealer

    async def add(self, who: Identity, account: str, provider: str, value: str) -> Kept:
        """Keep a key; Refused when this owner has one for the account already."""
        key = _checked_value(value)
        owner = _user(who)
        _check_names(owner, account, provider)
        sealer = self._ready()
        sealed = sealer.seal(owner, account, provider, key)
        try:
            async with self._acting() as connection:
                row = await connection.fetchrow(ADD, owner, account, provider, sealed, sealer.key_id)
                kept = await _kept(connection, who, "credential-add", row)
        except asyncpg.UniqueViolationError:
            message = f"there is a credential for account {account} already: rotate it, or remove it first"
            raise Refused(Code.CONFLICT, message, field="account") from None
        log.info("credential added", credential=kept.credential.id, owner=owner, account=account)
        return kept

    async def listed(self, who: Identity, after: int = 0) -> list[Credential]:
        """Theirs (an admin's: everyone's), by id, at most LISTED_MOST."""
        async with self._acting() as connection:
            return [_credential(row) for row in await connection.fetch(LIST, _mine(who), after, LISTED_MOST)]

    async def rotate(self, who: Identity, credential: CredentialId, value: str) -> Kept:
        """Replace the key; pages that are being asked for still use the old one."""
        key, sealer = _checked_value(value), self._ready()
        async with self._acting() as connection:
            found = _credential(_present(await connection.fetchrow(LOCK, credential, _mine(who)), credential))
            sealed = sealer.seal(found.owner, found.account, found.provider, key)
            row = await connection.fetchrow(ROTATE, credential, sealed, sealer.key_id)
            kept = await _kept(connection, who, "credential-rotate", row)
        log.info("credential rotated", credential=credential)
        return kept

    async def remove(self, who: Identity, credential: CredentialId) -> int:
        """Forget a key; jobs that wait for their turn with it will end and say so. Returns the audit entry."""
        async with self._acting() as connection:
            gone = _credential(_present(await connection.fetchrow(REMOVE, credential, _mine(who)), credential))
            entry = await audit.write(connection, who.user, "credential-remove", _target(gone), _said(gone))
        log.info("credential removed", credential=credential)
        return entry

    async def check(
        self,
        who: Identity,
        credential: CredentialId,
        ask: Callable[[CredentialId, str, SecretStr], Awaitable[Check]],
    ) -> Asked:
        """Ask the provider (`Provider.check`) and remember what it said, unless the key was replaced meanwhile."""
        async with self._acting() as connection:
            row = _present(await connection.fetchrow(READ, credential, _mine(who)), credential)
        found = _credential(row)
        try:
            answer = await ask(found.id, found.account, self._ready().open(found, row["sealed"]))
        except AuthFailed as failed:
            answer = Check(False, None, failed.message)
        async with self._acting() as connection:
            await connection.execute(CHECKED, credential, row["sealed"], answer.message)
            after = {**_said(found), "ok": answer.ok}
            return Asked(
                answer, await audit.write(connection, who.user, "credential-check", _target(found), after=after)
            )

    async def key(self, credential: CredentialId) -> SecretStr:
        """The value, for whoever asks the provider; AuthFailed when it is gone or does not open, Retryable without IMPORTS_KEY."""
        if self._sealer is None:
            raise Retryable(UNKEYED, 60.0)
        async with self._acting() as connection:
            row = await connection.fetchrow(READ, credential, None)
        if row is None:
            raise AuthFailed(f"credential {credential} was removed: add one, and requeue the job")
        return self._sealer.open(_credential(row), row["sealed"])

    async def reseal(self, after: int = 0) -> Resealed:
        """Move a slice of the credentials that are not under the present key."""
        sealer = self._ready()
        async with self._acting() as connection:
            rows = await connection.fetch(STALE, sealer.key_id, after, RESEAL_ROWS)
            moved = [one for row in rows if (one := _resealed(sealer, row)) is not None]
            await connection.execute(RESEAL, [id for id, _ in moved], [sealed for _, sealed in moved], sealer.key_id)
        last = rows[-1]["id"] if len(rows) == RESEAL_ROWS else None
        return Resealed(len(moved), len(rows) - len(moved), last)

    def _ready(self) -> Sealer:
        if self._sealer is None:
            raise Unavailable(UNKEYED, 60.0)
        return self._sealer

    @asynccontextmanager
    async def _acting(self) -> AsyncIterator[Connection]:
        async with self._db.transaction() as connection:
            await connection.execute(AS_SERVICE)
            yield connection


def _credential(row: asyncpg.Record) -> Credential:
    return Credential(**{name: row[name] for name in Credential.__slots__})


async def _kept(connection: Connection, who: Identity, action: str, row: asyncpg.Record | None) -> Kept:
    assert row is not None, "a credential that was written is there"
    credential = _credential(row)
    after = _said(credential)
    return Kept(credential, await audit.write(connection, who.user, action, _target(credential), after=after))


def _target(credential: Credential) -> str:
    return f"credential {credential.id}"


def _said(credential: Credential) -> dict[str, object]:
    return {"owner": credential.owner, "account": credential.account, "provider": credential.provider}


def _mine(who: Identity) -> str | None:
    """Whose credentials count; everyone's for an admin."""
    return None if who.admin else _user(who)


def _user(who: Identity) -> str:
    if not who.user:
        raise Refused(Code.UNAUTHORIZED, "credentials need a token that says who you are")
    return who.user


def _present(row: asyncpg.Record | None, credential: CredentialId) -> asyncpg.Record:
    if row is None:
        raise _missing(credential)
    return row


def _missing(credential: CredentialId) -> Refused:
    return Refused(Code.NOT_FOUND, f"there is no credential {credential} of yours", field="credential")


def _resealed(sealer: Sealer, row: asyncpg.Record) -> tuple[CredentialId, bytes] | None:
    credential = _credential(row)
    try:
        value = sealer.open(credential, row["sealed"])
    except AuthFailed as failed:
        log.warning("credential lost", credential=credential.id, reason=failed.message)
        return None
    return credential.id, sealer.seal(credential.owner, credential.account, credential.provider, value)


def _checked_value(value: str) -> SecretStr:
    """A key that a header can carry; what is wrong with it is told without repeating it."""
    text = value.strip()
    if not VALUE_LEAST <= len(text) <= VALUE_MOST or not _VALUE.fullmatch(text):
        message = f"a key has {VALUE_LEAST} to {VALUE_MOST} printable ASCII characters and no blanks"
        raise Refused(Code.BAD_MESSAGE, message, field="key", limit=VALUE_MOST)
    return SecretStr(text)


def _check_names(owner: str, account: str, provider: str) -> None:
    if provider not in PROVIDERS:
        message = f"{provider[:40]!r} is no provider; there is {', '.join(PROVIDERS)}"
        raise Refused(Code.BAD_MESSAGE, message, field="provider")
    for name, text in (("owner", owner), ("account", account)):
        if not 1 <= len(text) <= NAME_MOST or not text.isprintable():
            message = f"{name} has 1 to {NAME_MOST} printable characters"
            raise Refused(Code.BAD_MESSAGE, message, field=name, limit=NAME_MOST)


def _material(name: str, secret: SecretStr) -> bytes:
    material = secret.get_secret_value().encode()
    if len(material) < KEY_LEAST:
        raise StartRefused(
            f"{name} has {len(material)} bytes; at least {KEY_LEAST} are needed (make one with `openssl rand -base64 48`)."
        )
    return material


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"batchcast imports " + purpose).derive(secret)


def _key_id(secret: bytes) -> str:
    return _derived(secret, b"key id")[:8].hex()


def _bound(owner: str, account: str, provider: str) -> bytes:
    return orjson.dumps([owner, account, provider])
