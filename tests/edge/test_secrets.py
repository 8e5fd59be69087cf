import json
import os
import stat
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs

from server.core.loopback import is_loopback
from server.edge.clock import VirtualClock
from server.edge.secrets import ADMIN_TTL_S, exposed, keys_of, mint, open_keys, rotate
from server.errors import Refused, StartRefused
from server.settings import Settings, load

pytestmark = pytest.mark.pure

SECRET = "a secret of the environment, long enough to be taken"
NEXT = "the next secret of the environment, also long enough"
PRIVATE = ed25519.Ed25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def settings(folder: Path, **chosen: Any) -> Settings:
    return load({}, data_dir=folder / "data", **chosen)


def admin_token(given: Settings) -> str:
    return (given.data_dir / "admin.token").read_text().strip()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_any_key_set_a_local_one_and_the_admins_token_are_made_for_their_owner_only(
    tmp_path: Path, clock: VirtualClock
) -> None:
    given = settings(tmp_path)
    who = open_keys(given, clock).verify(admin_token(given))

    assert who.user == "admin"
    assert who.admin
    assert who.expires_ms == clock.now_ms() + ADMIN_TTL_S * 1000
    assert mode(given.data_dir / "jwt.keys") == mode(given.data_dir / "admin.token") == 0o600
    assert sorted(path.name for path in given.data_dir.iterdir()) == ["admin.token", "jwt.keys"]


def test_the_next_start_keeps_key_and_token(tmp_path: Path, clock: VirtualClock) -> None:
    given = settings(tmp_path)
    open_keys(given, clock)
    before = admin_token(given)

    assert open_keys(given, clock).verify(before).admin
    assert admin_token(given) == before


@pytest.mark.parametrize("damage", ["", "nonsense", "a.b.c"])
def test_an_admins_token_that_is_no_longer_good_is_made_anew(tmp_path: Path, clock: VirtualClock, damage: str) -> None:
    given = settings(tmp_path)
    keys = open_keys(given, clock)
    (given.data_dir / "admin.token").write_text(damage)
    open_keys(given, clock)

    assert keys.verify(admin_token(given)).admin


async def test_an_admins_token_that_soon_ends_is_made_anew(tmp_path: Path, clock: VirtualClock) -> None:
    given = settings(tmp_path)
    open_keys(given, clock)
    before = admin_token(given)
    await clock.advance(ADMIN_TTL_S - 60)

    assert open_keys(given, clock).verify(admin_token(given)).admin
    assert admin_token(given) != before


def test_another_users_token_in_its_place_is_replaced(tmp_path: Path, clock: VirtualClock) -> None:
    given = settings(tmp_path)
    keys = open_keys(given, clock)
    (given.data_dir / "admin.token").write_text(mint(given, sub="eve", clock=clock))
    open_keys(given, clock)

    assert keys.verify(admin_token(given)).admin


def test_a_minted_token_is_what_was_asked_for(tmp_path: Path, clock: VirtualClock) -> None:
    given = settings(tmp_path, jwt_audience="maps", jwt_issuer="us")
    text = mint(given, sub="ada", roles=["producer", "viewer"], ttl_s=60, team="red", clock=clock)
    who = keys_of(given, clock).verify(text)

    assert (who.user, who.team, who.roles) == ("ada", "red", frozenset(("producer", "viewer")))
    assert who.expires_ms == clock.now_ms() + 60_000
    assert keys_of(given, clock).verify(mint(given, sub="ada", ttl_s=None, clock=clock)).expires_ms is None


@pytest.mark.parametrize(
    ("wishes", "word"),
    [
        ({"sub": "ada", "roles": ["root"]}, "root"),
        ({"sub": ""}, "sub"),
        ({"sub": "a" * 129}, "sub"),
        ({"sub": "ada", "ttl_s": 0}, "at least 1 s"),
    ],
)
def test_wishes_that_can_not_be_met_are_refused_in_words(tmp_path: Path, wishes: dict[str, Any], word: str) -> None:
    with pytest.raises(StartRefused, match=word):
        mint(settings(tmp_path), **wishes)


def test_the_secret_of_the_environment_signs_and_makes_no_key_file(tmp_path: Path, clock: VirtualClock) -> None:
    given = settings(tmp_path, jwt_secret=SECRET)
    keys = open_keys(given, clock)

    assert keys.verify(admin_token(given)).admin
    assert keys.verify(jwt.encode({"sub": "ada"}, SECRET, algorithm="HS256")).user == "ada"
    assert not (given.data_dir / "jwt.keys").exists()


def test_while_the_secret_is_rotated_tokens_of_both_are_good_and_new_ones_are_of_the_new(
    tmp_path: Path, clock: VirtualClock
) -> None:
    old = mint(settings(tmp_path, jwt_secret=SECRET), sub="ada", clock=clock)
    given = settings(tmp_path, jwt_secret=NEXT, jwt_secret_previous=SECRET)
    keys = open_keys(given, clock)

    assert keys.verify(old).user == "ada"
    assert jwt.decode(mint(given, sub="bob"), NEXT, algorithms=["HS256"], options={"verify_iat": False})["sub"] == "bob"
    with pytest.raises(Refused):
        open_keys(settings(tmp_path, jwt_secret=NEXT), clock).verify(old)


@pytest.mark.parametrize(
    ("chosen", "word"),
    [
        ({"jwt_secret": "short"}, "JWT_SECRET has 5 bytes"),
        ({"jwt_secret": SECRET, "jwt_secret_previous": "short"}, "JWT_SECRET_PREVIOUS"),
        ({"jwt_secret_previous": SECRET, "jwt_public_key": PUBLIC}, "without JWT_SECRET"),
        ({"jwt_public_key": "/nowhere/key.pem"}, "neither a PEM text nor a file"),
        ({"host": "0.0.0.0"}, "Set JWT_SECRET"),
        ({"host": "::"}, "Set JWT_SECRET"),
        ({"host": "example.org"}, "Set JWT_SECRET"),
    ],
)
def test_what_would_not_be_safe_does_not_start(
    tmp_path: Path, clock: VirtualClock, chosen: dict[str, Any], word: str
) -> None:
    with pytest.raises(StartRefused, match=word):
        open_keys(settings(tmp_path, **chosen), clock)


@pytest.mark.parametrize("chosen", [{"jwt_secret": SECRET}, {"jwt_public_key": PUBLIC}])
def test_beyond_loopback_a_configured_key_is_enough(
    tmp_path: Path, clock: VirtualClock, chosen: dict[str, Any]
) -> None:
    given = settings(tmp_path, host="0.0.0.0", **chosen)

    assert exposed(given)
    open_keys(given, clock)


def test_with_a_public_key_tokens_are_made_elsewhere_and_a_left_over_admins_token_goes(
    tmp_path: Path, clock: VirtualClock
) -> None:
    open_keys(settings(tmp_path), clock)
    given = settings(tmp_path, jwt_public_key=PUBLIC.replace("\n", "\\n"))
    keys = open_keys(given, clock)

    assert keys.verify(jwt.encode({"sub": "ada"}, PRIVATE, algorithm="EdDSA")).user == "ada"
    assert not (given.data_dir / "admin.token").exists()
    with pytest.raises(StartRefused, match="private key"):
        mint(given, sub="ada")


def test_a_public_key_may_be_a_file(tmp_path: Path, clock: VirtualClock) -> None:
    (tmp_path / "key.pem").write_text(PUBLIC)
    keys = open_keys(settings(tmp_path, jwt_public_key=str(tmp_path / "key.pem")), clock)

    assert keys.verify(jwt.encode({"sub": "ada"}, PRIVATE, algorithm="EdDSA")).user == "ada"


def test_rotating_takes_effect_in_a_running_server_and_keeps_the_old_key_until_the_next(
    tmp_path: Path, clock: VirtualClock
) -> None:
    given = settings(tmp_path)
    running = open_keys(given, clock)
    first = mint(given, sub="ada", clock=clock)

    said = rotate(given, clock)
    second = mint(given, sub="bob", clock=clock)
    assert "until the next rotate" in said
    assert running.verify(first).user == "ada"
    assert running.verify(second).user == "bob"
    assert running.verify(admin_token(given)).admin

    rotate(given, clock)
    assert running.verify(second).user == "bob"
    with pytest.raises(Refused, match="another key"):
        running.verify(first)


@pytest.mark.parametrize(
    ("chosen", "word"), [({"jwt_secret": SECRET}, "JWT_SECRET_PREVIOUS"), ({"jwt_public_key": PUBLIC}, "public half")]
)
def test_rotating_a_configured_key_says_what_to_set_and_changes_nothing(
    tmp_path: Path, chosen: dict[str, Any], word: str
) -> None:
    given = settings(tmp_path, **chosen)

    assert word in rotate(given)
    assert SECRET not in rotate(given)
    assert not given.data_dir.exists()


def test_a_key_file_open_to_others_is_closed_and_told(tmp_path: Path, clock: VirtualClock) -> None:
    given = settings(tmp_path)
    open_keys(given, clock)
    (given.data_dir / "jwt.keys").chmod(0o644)
    with capture_logs() as logs:
        open_keys(given, clock)

    assert mode(given.data_dir / "jwt.keys") == 0o600
    assert [line["event"] for line in logs] == ["secret file was open to others"]


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"current": 7}', '{"current": "!!"}', '{"current": "AAAA"}'])
def test_a_damaged_key_file_stops_the_start_and_says_what_to_do(
    tmp_path: Path, clock: VirtualClock, damage: str
) -> None:
    given = settings(tmp_path)
    open_keys(given, clock)
    (given.data_dir / "jwt.keys").write_text(damage)
    with pytest.raises(StartRefused, match="Remove it"):
        open_keys(given, clock)


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_text("damaged")])
def test_a_running_server_keeps_its_keys_when_the_file_comes_to_harm(
    tmp_path: Path, clock: VirtualClock, harm: Any
) -> None:
    given = settings(tmp_path)
    running = open_keys(given, clock)
    text = mint(given, sub="ada", clock=clock)
    assert running.verify(text).user == "ada"
    harm(given.data_dir / "jwt.keys")

    assert running.verify(text).user == "ada"


def test_a_data_directory_that_can_not_be_written_is_told_in_words(tmp_path: Path, clock: VirtualClock) -> None:
    (tmp_path / "data").write_text("a file stands where the directory should be")
    with pytest.raises(StartRefused, match="DATA_DIR"):
        open_keys(settings(tmp_path), clock)


def test_no_secret_is_logged(tmp_path: Path, clock: VirtualClock) -> None:
    given = settings(tmp_path)
    with capture_logs() as logs:
        open_keys(given, clock)
        rotate(given, clock)
    stored = json.loads((given.data_dir / "jwt.keys").read_text())

    said = repr(logs)
    assert admin_token(given) not in said
    assert stored["current"] not in said
    assert stored["previous"] not in said


def test_of_two_that_make_the_key_file_at_once_both_use_the_first(tmp_path: Path, clock: VirtualClock) -> None:
    given = settings(tmp_path)
    pids = []
    for _ in range(6):
        pid = os.fork()
        if pid == 0:
            mint(given, sub="child")
            os._exit(0)
        pids.append(pid)
    mine = mint(given, sub="parent", clock=clock)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)

    assert open_keys(given, clock).verify(mine).user == "parent"


@pytest.mark.parametrize(
    ("host", "mine"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("app.localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_and_nothing_else(host: str, mine: bool) -> None:
    assert is_loopback(host) is mine
