"""Who holds this token? `Keys.verify` answers with an Identity, or Refused(unauthorized) and a sentence that helps.

A token is a JWT with `sub` (the user), optionally `roles` (a list), `team`, `exp` and `nbf`; `aud` and `iss` must fit when
JWT_AUDIENCE and JWT_ISSUER are set. What it promises:
- The algorithm is the key's, never the token's: a secret verifies HS256, an RSA key RS256, a P-256 key ES256, an Ed25519
  key EdDSA. So a token that names "none", or HS256 over our public key, is refused like any forgery.
- Several keys may be valid at once (while one is being rotated). The local key file is looked at on every call (one
  `stat`), so that `token rotate` takes effect in a running server.
- No message, log line or exception holds a token, a secret or a key.

Time comes from the Clock: PyJWT's own checks of time are off, and a token ends at the very millisecond of its `exp`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.types import Options

from server.core.identity import Identity
from server.edge.clock import Clock
from server.errors import Code, Refused, StartRefused
from server.protocol.values import MAX_MS, to_iso

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

TOKEN_AT_MOST: Final = 16_384
"""Longer tokens are refused unread."""
SUB_AT_MOST: Final = 128
"""As long as any identifier: creatorId and sharedWith compare with it."""
SECRET_AT_LEAST: Final = 32
"""Bytes of an HS256 secret (RFC 7518, 3.2: no shorter than the hash)."""
RSA_AT_LEAST: Final = 2048
EARLY_MS: Final = 60_000
"""Tolerated for `nbf` only: the maker's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key that verifies: the algorithm belongs to it."""

    algorithm: str
    material: bytes | PublicKey

    def __repr__(self) -> str:
        return f"Key({self.algorithm})"


def secret_key(name: str, secret: bytes) -> Key:
    """An HS256 key; StartRefused when it is too short to be safe."""
    if b"-----BEGIN" in secret:
        raise StartRefused(f"{name} holds a PEM key; a public key belongs in JWT_PUBLIC_KEY, a secret is random text.")
    if len(secret) < SECRET_AT_LEAST:
        raise StartRefused(
            f"{name} has {len(secret)} bytes; at least {SECRET_AT_LEAST} are needed. "
            "Make one with `openssl rand -base64 48`."
        )
    return Key("HS256", secret)


def public_key(pem: str) -> Key:
    """The key of a PEM text, with the one algorithm of its type; StartRefused says what else it is."""
    if "PRIVATE KEY" in pem:
        raise StartRefused("JWT_PUBLIC_KEY holds a private key; give the public half (`openssl pkey -pubout`).")
    try:
        key = load_pem_public_key(pem.encode())
    except Exception as error:  # noqa: BLE001  # the library raises half a dozen kinds, all of which mean this.
        raise StartRefused(
            f"JWT_PUBLIC_KEY is not a PEM public key ({type(error).__name__}); it begins with -----BEGIN PUBLIC KEY-----."
        ) from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_AT_LEAST:
        return Key("RS256", key)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return Key("ES256", key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Key("EdDSA", key)
    raise StartRefused(f"JWT_PUBLIC_KEY must be RSA of {RSA_AT_LEAST} bits or more, EC P-256 or Ed25519.")


class Keys:
    """All keys whose tokens are valid now. `current` is asked on every call, so that keys can change while we run."""

    def __init__(
        self,
        current: Callable[[], tuple[Key, ...]],
        *,
        clock: Clock,
        audience: str | None = None,
        issuer: str | None = None,
    ) -> None:
        self._current = current
        self._clock = clock
        self._audience = audience
        self._issuer = issuer

    def verify(self, token: str) -> Identity:
        """Whose token this is; Refused(unauthorized) says what is wrong with it."""
        claims = self._claims(token)
        now_ms = self._clock.now_ms()
        expires_ms = _moment(claims, "exp")
        if expires_ms is not None and now_ms >= expires_ms:
            raise _refused(f"the token expired at {to_iso(expires_ms)}; get a new one")
        valid_ms = _moment(claims, "nbf")
        if valid_ms is not None and now_ms < valid_ms - EARLY_MS:
            raise _refused(f"the token is not valid before {to_iso(valid_ms)}")
        return Identity(_sub(claims), _roles(claims), expires_ms, _team(claims))

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > TOKEN_AT_MOST or token.count(".") != 2 or not token.isascii():
            raise _refused("that is not a token: a JWT has three parts with dots between them")
        keys = self._current()
        for key in keys:
            claims = self._decode(token, key)
            if claims is not None:
                return claims
        algorithms = " or ".join(dict.fromkeys(key.algorithm for key in keys))
        raise _refused(f"the token was signed with another key or algorithm than this server's ({algorithms})")

    def _decode(self, token: str, key: Key) -> dict[str, Any] | None:
        """The claims; None when it is another key's token."""
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                options={"verify_aud": self._audience is not None, **_CHECKED_HERE},
            )
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
            return None
        except jwt.PyJWTError as error:
            raise _refused(_words(error)) from None


_CHECKED_HERE: Final[Options] = {
    "verify_sub": False,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_jti": False,
}
"""The signature is always verified; these PyJWT would check by its own clock, or less strictly than `verify` does."""


def _refused(message: str) -> Refused:
    return Refused(Code.UNAUTHORIZED, message)


def _words(error: jwt.PyJWTError) -> str:
    if isinstance(error, jwt.InvalidAudienceError):
        return "the token is for another audience (aud) than this server's (JWT_AUDIENCE)"
    if isinstance(error, jwt.InvalidIssuerError):
        return "the token comes from another issuer (iss) than this server accepts (JWT_ISSUER)"
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the token has no {error.claim}, which this server needs"
    return "that is not a token: its parts are not those of a JWT"


def _moment(claims: dict[str, Any], name: str) -> int | None:
    """A NumericDate (seconds since 1970) in ms."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_MS // 1000:
        raise _refused(f"the token's {name} is not a time in seconds since 1970")
    return int(value * 1000)


def _sub(claims: dict[str, Any]) -> str:
    sub = claims.get("sub")
    if not isinstance(sub, str) or not 1 <= len(sub) <= SUB_AT_MOST:
        raise _refused(f"the token has no sub (the user: a text of 1 to {SUB_AT_MOST} characters)")
    return sub


def _roles(claims: dict[str, Any]) -> frozenset[str]:
    """Names that we do not know are kept: they allow nothing here."""
    roles = claims.get("roles")
    if roles is None:
        return frozenset()
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise _refused('the token\'s roles are not a list of texts (["producer"])')
    return frozenset(roles)


def _team(claims: dict[str, Any]) -> str | None:
    team = claims.get("team")
    if team is not None and not isinstance(team, str):
        raise _refused("the token's team is not a text")
    return team
