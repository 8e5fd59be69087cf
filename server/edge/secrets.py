"""Where keys come from, and how tokens are made: the environment, else two small files in DATA_DIR (mode 0600).

    JWT_SECRET (+ JWT_SECRET_PREVIOUS)    HS256; this server makes and verifies tokens
    JWT_PUBLIC_KEY                        RS256, ES256 or EdDSA; tokens are made elsewhere, verified here
    neither: DATA_DIR/jwt.keys            HS256 with a random key made here; loopback only
    DATA_DIR/admin.token                  a token with role admin, whenever this server can make one

The verbs:
    open_keys(settings, clock)            what the server verifies with; StartRefused when it may not start like this
    mint(settings, sub=, roles=, ttl_s=, team=)    a token (text); StartRefused when it can't be made here
    rotate(settings)                      a new local key, the old one valid until the next rotate; a sentence for people

Keys are drawn from the operating system's generator, never from the Clock: what a test can repeat, a thief can too.
Files are written beside their place and moved there, so that a reader sees the old one or the new one. A key file that
others may read is closed to them and logged: whoever read it can make tokens until the next two rotations.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jwt
import structlog

from server.core.identity import ROLES, Identity
from server.core.loopback import is_loopback
from server.edge.auth import SUB_AT_MOST, TOKEN_AT_MOST, Key, Keys, public_key, secret_key
from server.edge.clock import Clock, SystemClock
from server.errors import Refused, StartRefused
from server.settings import Settings

KEY_FILE: Final = "jwt.keys"
ADMIN_FILE: Final = "admin.token"
ADMIN: Final = Identity("admin", frozenset(("admin",)))
ADMIN_TTL_S: Final = 10 * 365 * 86_400
RENEW_BEFORE_MS: Final = 30 * 86_400_000
"""The admin's token is made anew when less than this is left of it."""
LOCAL_KEY_BYTES: Final = 48

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LocalKeys:
    """What DATA_DIR/jwt.keys holds: the key that signs, and the one before it."""

    current: bytes
    previous: bytes | None = None

    def keys(self) -> tuple[Key, ...]:
        """As keys that verify, the newest first."""
        return tuple(Key("HS256", material) for material in (self.current, self.previous) if material is not None)

    def __repr__(self) -> str:
        return "LocalKeys(…)"


class KeyFile:
    """The local key file, read again whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def __call__(self) -> tuple[Key, ...]:
        """The keys that are valid now; while the file is gone or damaged, those of before."""
        try:
            stat = os.stat(self._path)
        except OSError:
            return self._keys
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if stamp != self._seen:
            self._seen = stamp
            self._load()
        return self._keys

    def _load(self) -> None:
        try:
            self._keys = read_or_make(self._path).keys()
        except StartRefused as error:
            log.error("key file refused", path=str(self._path), error=str(error))


def exposed(settings: Settings) -> bool:
    """Can others reach the server, beyond loopback or through a proxy?"""
    return not is_loopback(settings.host) or bool(settings.trusted_proxies)


def _how(settings: Settings) -> str:
    return f"HOST is {settings.host}" if not is_loopback(settings.host) else "TRUSTED_PROXIES is set"


def open_keys(settings: Settings, clock: Clock) -> Keys:
    """The keys to verify with, and DATA_DIR/admin.token made when absent or no longer valid."""
    keys = keys_of(settings, clock)
    if exposed(settings) and not _configured(settings):
        raise StartRefused(
            f"Others can reach this server ({_how(settings)}), and no key for tokens is set. Set JWT_SECRET (make one "
            "with `openssl rand -base64 48`) or JWT_PUBLIC_KEY, or listen on 127.0.0.1."
        )
    _keep_admin_token(settings, keys, clock)
    return keys


def keys_of(settings: Settings, clock: Clock) -> Keys:
    """The keys alone; makes the local key file when it is needed and absent."""
    if _configured(settings):
        fixed = _configured_keys(settings)
        return Keys(lambda: fixed, clock=clock, audience=settings.jwt_audience, issuer=settings.jwt_issuer)
    path = settings.data_dir / KEY_FILE
    read_or_make(path)
    return Keys(KeyFile(path), clock=clock, audience=settings.jwt_audience, issuer=settings.jwt_issuer)


def mint(
    settings: Settings,
    *,
    sub: str,
    roles: Iterable[str] = (),
    ttl_s: int | None = 86_400,
    team: str | None = None,
    clock: Clock | None = None,
) -> str:
    """A token for this user; `ttl_s` None never expires. StartRefused says why one can't be made."""
    names = sorted(set(roles))
    _check_wishes(sub, names, ttl_s)
    now_s = (clock or SystemClock()).now_ms() // 1000
    claims: dict[str, object] = {"sub": sub, "roles": names, "iat": now_s}
    optional = {
        "exp": None if ttl_s is None else now_s + ttl_s,
        "team": team,
        "aud": settings.jwt_audience,
        "iss": settings.jwt_issuer,
    }
    claims |= {name: value for name, value in optional.items() if value is not None}
    token = jwt.encode(claims, _signing_secret(settings), algorithm="HS256")
    assert len(token) <= TOKEN_AT_MOST, "a token of ours that we would refuse"
    return token


def rotate(settings: Settings, clock: Clock | None = None) -> str:
    """A new local key; the old one stays valid until the next rotate. Answers with what was done, or what to set."""
    if settings.jwt_secret is not None:
        return _HOW_TO_ROTATE_SECRET
    if settings.jwt_public_key is not None:
        return _HOW_TO_ROTATE_PUBLIC
    path = settings.data_dir / KEY_FILE
    old = read_or_make(path)
    _write(path, _text(LocalKeys(secrets.token_bytes(LOCAL_KEY_BYTES), old.current)))
    _write(settings.data_dir / ADMIN_FILE, _admin_token(settings, clock or SystemClock()))
    return (
        f"A new key signs from now on ({path}), also in a running server. Tokens of the old key stay valid until the "
        f"next rotate; {settings.data_dir / ADMIN_FILE} was made anew."
    )


_HOW_TO_ROTATE_SECRET: Final = (
    "The key is JWT_SECRET in the environment, so it is changed there: set JWT_SECRET_PREVIOUS to the present value and "
    "JWT_SECRET to a new one (`openssl rand -base64 48`), restart every node, and remove JWT_SECRET_PREVIOUS once the "
    "tokens of the old one have expired."
)
_HOW_TO_ROTATE_PUBLIC: Final = (
    "Tokens are made elsewhere and verified with JWT_PUBLIC_KEY: rotate the private key there, then set JWT_PUBLIC_KEY to "
    "the new public half and restart every node."
)


def _configured(settings: Settings) -> bool:
    return settings.jwt_secret is not None or settings.jwt_public_key is not None


def _configured_keys(settings: Settings) -> tuple[Key, ...]:
    keys: list[Key] = []
    if settings.jwt_secret is not None:
        keys.append(secret_key("JWT_SECRET", settings.jwt_secret.get_secret_value().encode()))
    if settings.jwt_secret_previous is not None:
        if settings.jwt_secret is None:
            raise StartRefused("JWT_SECRET_PREVIOUS is set without JWT_SECRET; set the new secret as JWT_SECRET.")
        keys.append(secret_key("JWT_SECRET_PREVIOUS", settings.jwt_secret_previous.get_secret_value().encode()))
    if settings.jwt_public_key is not None:
        keys.append(public_key(_pem(settings.jwt_public_key)))
    return tuple(keys)


def _pem(text_or_path: str) -> str:
    """Environment files can't hold newlines: a PEM text may write them as backslash n."""
    if "-----BEGIN" in text_or_path:
        return text_or_path.replace("\\n", "\n")
    try:
        return Path(text_or_path).read_text("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise StartRefused(
            f"JWT_PUBLIC_KEY is neither a PEM text nor a file that can be read ({_reason(error)})."
        ) from None


def _signing_secret(settings: Settings) -> bytes:
    if settings.jwt_secret is not None:
        return _configured_keys(settings)[0].material  # type: ignore[return-value]  # the first one is the secret
    if settings.jwt_public_key is not None:
        raise StartRefused("Only JWT_PUBLIC_KEY is set: tokens are made where its private key is, not here.")
    return read_or_make(settings.data_dir / KEY_FILE).current


def _check_wishes(sub: str, roles: list[str], ttl_s: int | None) -> None:
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise StartRefused(f"{unknown[0]!r} is not a role; the roles are {', '.join(ROLES)}.")
    if not 1 <= len(sub) <= SUB_AT_MOST:
        raise StartRefused(f"sub (the user) has 1 to {SUB_AT_MOST} characters, not {len(sub)}.")
    if ttl_s is not None and ttl_s < 1:
        raise StartRefused(f"a token lives at least 1 s, not {ttl_s}.")


# --- the files ---


def read_or_make(path: Path) -> LocalKeys:
    """The local keys; made when there are none. Of two that make them at once, both get those of the first."""
    if not _exists(path):
        _make_once(path, _text(LocalKeys(secrets.token_bytes(LOCAL_KEY_BYTES))))
    text = _read(path)
    try:
        parts = json.loads(text)
        keys = LocalKeys(_decoded(parts["current"]), _decoded(parts["previous"]) if parts.get("previous") else None)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise StartRefused(
            f"{path} is damaged. Remove it: a new key is made at the next start, and tokens made before are void."
        ) from None
    return keys


def _decoded(text: str) -> bytes:
    material = base64.b64decode(text, validate=True)
    if len(material) < LOCAL_KEY_BYTES:
        raise ValueError("too short to be one of ours")
    return material


def _text(keys: LocalKeys) -> str:
    previous = None if keys.previous is None else base64.b64encode(keys.previous).decode()
    return json.dumps({"current": base64.b64encode(keys.current).decode(), "previous": previous}) + "\n"


def _keep_admin_token(settings: Settings, keys: Keys, clock: Clock) -> None:
    path = settings.data_dir / ADMIN_FILE
    if _exists(path) and _still_good(_read(path).strip(), keys, clock):
        return
    if settings.jwt_secret is None and settings.jwt_public_key is not None:
        path.unlink(missing_ok=True)  # Made with a key of before: it would only mislead.
        return
    _write(path, _admin_token(settings, clock))
    log.info("admin token written", path=str(path))


def _admin_token(settings: Settings, clock: Clock) -> str:
    return mint(settings, sub="admin", roles=ADMIN.roles, ttl_s=ADMIN_TTL_S, clock=clock) + "\n"


def _still_good(token: str, keys: Keys, clock: Clock) -> bool:
    try:
        who = keys.verify(token)
    except Refused:
        return False
    return who.admin and (who.expires_ms is None or who.expires_ms - clock.now_ms() > RENEW_BEFORE_MS)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> StartRefused:
    return StartRefused(f"{path} cannot be read ({_reason(error)}). Run this as the user that the server runs as.")


def _read(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
            log.warning("secret file was open to others", path=str(path), next_step="batchcast token rotate")
        return path.read_text("utf-8", "replace")
    except OSError as error:
        raise _unreadable(path, error) from None


def _write(path: Path, text: str) -> None:
    beside = _written_beside(path, text)
    os.replace(beside, path)


def _make_once(path: Path, text: str) -> None:
    """Like `_write`, but leaves a file alone that someone else made meanwhile."""
    beside = _written_beside(path, text)
    try:
        os.link(beside, path)
    except FileExistsError:
        return
    except OSError:  # A file system without hard links.
        if not _exists(path):
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _written_beside(path: Path, text: str) -> Path:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise StartRefused(
            f"{path} cannot be written ({_reason(error)}). Set DATA_DIR to a directory that this user may write to."
        ) from None
    return beside


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
