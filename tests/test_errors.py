import pytest

from server.errors import CLOSES, ERRORS, Code, Refused, StartRefused, Unavailable

pytestmark = pytest.mark.pure

PUBLISHED = (
    "bad_json bad_message bad_viewport bad_filter too_large too_many unauthorized forbidden not_registered "
    "not_found conflict unavailable shutting_down"
)


def test_the_codes_are_those_of_the_protocol_and_each_has_a_row() -> None:
    assert [str(code) for code in Code] == PUBLISHED.split()
    assert list(ERRORS) == list(Code)


def test_statuses_are_those_of_the_protocol() -> None:
    assert {kind.status for kind in ERRORS.values()} == {400, 401, 403, 404, 409, 413, 422, 429, 503}


def test_the_same_request_may_succeed_later_only_when_the_world_or_a_limit_said_no() -> None:
    assert {code for code, kind in ERRORS.items() if kind.retry} == {
        Code.TOO_MANY,
        Code.UNAVAILABLE,
        Code.SHUTTING_DOWN,
    }
    for kind in ERRORS.values():
        assert kind.retry == (kind.status in (429, 503))


def test_every_close_code_is_one_that_may_be_sent_or_is_ours_and_says_whether_to_come_back() -> None:
    for number, kind in CLOSES.items():
        assert number in (1000, 1001, 1002, 1003, 1007, 1009, 1011, 1012) or 4000 <= number < 5000
        assert kind.meaning and kind.come_back.split(",")[0].split(":")[0] in ("yes", "no", "when it wants to")


def test_a_refusal_knows_its_status_and_whether_to_try_again() -> None:
    refusal = Refused("too_many", "slow down", limit=20)
    assert (refusal.code, refusal.status, refusal.retry, refusal.limit) == (Code.TOO_MANY, 429, True, 20)
    assert (str(refusal), refusal.field) == ("slow down", None)
    assert Refused(Code.BAD_FILTER, "no", field="filters.0").field == "filters.0"


def test_a_code_that_is_not_in_the_table_cannot_be_refused_with() -> None:
    with pytest.raises(ValueError, match="teapot"):
        Refused("teapot", "no")


def test_the_worlds_faults_say_when_to_come_back() -> None:
    trouble = Unavailable("the disk is full", 5)
    assert (trouble.message, trouble.retry_after_s, trouble.code) == ("the disk is full", 5, Code.UNAVAILABLE)
    assert Unavailable("going", code=Code.SHUTTING_DOWN).code is Code.SHUTTING_DOWN
    assert str(StartRefused("HTTP_PORT is in use")) == "HTTP_PORT is in use"
