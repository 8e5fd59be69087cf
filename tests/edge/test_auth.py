import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from server.edge.auth import TOKEN_AT_MOST, Key, Keys, public_key, secret_key
from server.edge.clock import VirtualClock
from server.errors import Code, Refused, StartRefused

pytestmark = pytest.mark.pure

SECRET = b"a secret of thirty-two bytes or more, surely"
OTHER = b"another secret of thirty-two bytes or more.."
CLOCK = VirtualClock()
NOW_S = CLOCK.now_ms() // 1000


def keys(*held: Key, **rules: str) -> Keys:
    current = held or (Key("HS256", SECRET),)
    return Keys(lambda: current, clock=CLOCK, **rules)


def token(secret: bytes = SECRET, **claims: Any) -> str:
    return jwt.encode({"sub": "ada", **claims}, secret, algorithm="HS256")


def refusal(held: Keys, text: str) -> str:
    with pytest.raises(Refused) as caught:
        held.verify(text)
    assert caught.value.code is Code.UNAUTHORIZED
    assert len(text) < 12 or text not in caught.value.message
    return caught.value.message


def pem(private: Any) -> str:
    data: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data.decode()


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part(header)}.{part(claims)}.{signature}"


def test_a_token_says_who_it_is_what_it_may_and_until_when() -> None:
    who = keys().verify(token(roles=["producer", "else"], team="red", exp=NOW_S + 60))

    assert (who.user, who.team, who.expires_ms) == ("ada", "red", (NOW_S + 60) * 1000)
    assert who.has("producer")
    assert not who.has("admin")


def test_a_token_without_roles_is_a_viewers_and_without_exp_does_not_end() -> None:
    who = keys().verify(token())

    assert who.has("viewer")
    assert not who.has("producer")
    assert who.expires_ms is None


def test_a_token_ends_at_its_exp_by_our_clock() -> None:
    assert keys().verify(token(exp=NOW_S + 1)).user == "ada"
    assert "expired at 2023-11-14T22:13:20.000Z" in refusal(keys(), token(exp=NOW_S))


def test_a_token_that_begins_later_is_refused_beyond_a_minute_of_tolerance() -> None:
    assert keys().verify(token(nbf=NOW_S + 59)).user == "ada"
    assert "not valid before" in refusal(keys(), token(nbf=NOW_S + 61))


def test_a_token_of_another_key_is_refused_and_the_message_tells_the_algorithm() -> None:
    assert "another key or algorithm" in refusal(keys(), token(OTHER))
    assert "HS256" in refusal(keys(), token(OTHER))


def test_tokens_of_all_keys_held_are_good_while_one_is_being_rotated() -> None:
    both = keys(Key("HS256", SECRET), Key("HS256", OTHER))

    assert both.verify(token(SECRET)).user == both.verify(token(OTHER)).user == "ada"


@pytest.mark.parametrize(
    "text",
    ["", "x", "a.b.c", "....", "a" * (TOKEN_AT_MOST + 1), "é.b.c", "null.null.null", "\udce9.a.b", "e30.e30."],
)
def test_what_is_no_jwt_is_refused_in_words(text: str) -> None:
    assert "not a token" in refusal(keys(), text) or "another key" in refusal(keys(), text)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS512", "RS256", "", None, [], 7])
def test_the_header_never_chooses_the_algorithm(algorithm: Any) -> None:
    refusal(keys(), unsigned({"alg": algorithm, "typ": "JWT"}, {"sub": "ada", "roles": ["admin"]}))


@pytest.mark.parametrize("sub", [None, "", 7, ["ada"], "a" * 129])
def test_a_token_without_a_usable_sub_is_refused(sub: Any) -> None:
    assert "no sub" in refusal(keys(), unsigned_signed({"sub": sub}))


def test_a_token_whose_sub_is_absent_is_refused() -> None:
    assert "no sub" in refusal(keys(), unsigned_signed({"roles": ["admin"]}))


def unsigned_signed(claims: dict[str, Any]) -> str:
    """Signed by hand: PyJWT refuses to make bad claims."""
    head = unsigned({"alg": "HS256", "typ": "JWT"}, claims)[:-1]
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head.encode(), SECRET)
    return head + "." + base64.urlsafe_b64encode(signature).decode().rstrip("=")


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"roles": "admin"}, "roles"),
        ({"roles": [1]}, "roles"),
        ({"roles": {"admin": True}}, "roles"),
        ({"team": 7}, "team"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": -1}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"nbf": []}, "nbf"),
    ],
)
def test_claims_of_the_wrong_kind_are_refused_by_name(claims: dict[str, Any], word: str) -> None:
    assert word in refusal(keys(), unsigned_signed({"sub": "ada", **claims}))


def test_audience_and_issuer_must_fit_when_they_are_set() -> None:
    strict = keys(audience="maps", issuer="us")

    assert strict.verify(token(aud="maps", iss="us")).user == "ada"
    assert strict.verify(token(aud=["x", "maps"], iss="us")).user == "ada"
    assert "audience" in refusal(strict, token(aud="other", iss="us"))
    assert "aud" in refusal(strict, token(iss="us"))
    assert "iss" in refusal(strict, token(aud="maps", iss="them"))
    assert "iss" in refusal(strict, token(aud="maps"))


def test_a_token_with_an_audience_is_fine_when_none_is_asked_for() -> None:
    assert keys().verify(token(aud="whoever", iss="whoever")).user == "ada"


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
)
def test_a_public_key_verifies_the_one_algorithm_of_its_type(private: Any, algorithm: str) -> None:
    key = public_key(pem(private))
    text = jwt.encode({"sub": "ada", "roles": ["admin"]}, private, algorithm=algorithm)

    assert key.algorithm == algorithm
    assert keys(key).verify(text).admin


def test_a_public_key_is_no_secret_to_sign_with() -> None:
    private = rsa.generate_private_key(65537, 2048)
    head = unsigned({"alg": "HS256", "typ": "JWT"}, {"sub": "ada", "roles": ["admin"]})[:-1]
    forged = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        head.encode(), pem(private).encode()
    )

    refusal(keys(public_key(pem(private))), head + "." + base64.urlsafe_b64encode(forged).decode().rstrip("="))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("nonsense", "not a PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "not a PEM"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (pem(rsa.generate_private_key(65537, 1024)), "2048"),
        (
            ed25519.Ed25519PrivateKey.generate()
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            .decode(),
            "private",
        ),
    ],
)
def test_a_key_that_can_not_be_used_stops_the_start_in_words(text: str, word: str) -> None:
    with pytest.raises(StartRefused, match=word):
        public_key(text)


def test_a_short_secret_or_a_pem_as_secret_stops_the_start_without_showing_it() -> None:
    with pytest.raises(StartRefused, match="31 bytes") as caught:
        secret_key("JWT_SECRET", b"s" * 31)
    assert "sss" not in str(caught.value)
    with pytest.raises(StartRefused, match="JWT_PUBLIC_KEY"):
        secret_key("JWT_SECRET", pem(ed25519.Ed25519PrivateKey.generate()).encode())


def test_keys_do_not_show_themselves() -> None:
    assert "secret" not in repr(Key("HS256", SECRET))


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda b: b.decode("latin-1")))
def test_no_text_whatever_is_taken_for_a_token(text: str) -> None:
    refusal(keys(), text if text else ".")


@given(st.integers(min_value=0, max_value=200), st.integers(min_value=0, max_value=127))
def test_a_token_with_one_letter_changed_is_refused(place: int, letter: int) -> None:
    good = token(roles=["admin"], exp=NOW_S + 60)
    at = place % (len(good) - 1)  # The last letter has bits that mean nothing.
    bad = good[:at] + chr(letter) + good[at + 1 :]
    if bad != good:
        with pytest.raises(Refused):
            keys().verify(bad)
