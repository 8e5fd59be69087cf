"""Rules: what comes in as JSON, GeoJSON, NDJSON or CSV, ours or foreign, becomes exactly one operation or refusal a row."""

import csv
import io
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.event import Op, Popularity, Rejected, Upsert
from server.errors import Refused
from server.protocol.event import popularity_op
from server.protocol.intake import Format, Intake, format_of, shift_to_now, sniff
from server.protocol.mapping import PLAIN, Mapping, content_id

BERLIN = {"longitude": 13.4, "latitude": 52.5}
START = 1_750_000_000_000
EVENT = {"id": "a", "title": "Jazz", "location": BERLIN, "start": START}


def feature(**properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": [13.4, 52.5]}, "properties": properties}


def collection(*features: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def read(body: object, fmt: Format = Format.JSON, mapping: Mapping = PLAIN, **limits: Any) -> list[Op | Rejected]:
    text = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else orjson.dumps(body)
    intake = Intake(fmt, mapping, **limits)
    return intake.feed(text) + intake.close()


def lines(*rows: object) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def fields(row: Op | Rejected) -> dict[str, Any]:
    assert isinstance(row, Upsert), row
    return dict(row.fields)


def refusal(row: Op | Rejected) -> Rejected:
    assert isinstance(row, Rejected), row
    return row


def test_one_object_an_array_and_ndjson_say_the_same() -> None:
    assert read(EVENT) == read([EVENT]) == read(lines(EVENT), Format.NDJSON)
    assert fields(read(EVENT)[0]) == {"title": "Jazz", "latitude": 52.5, "longitude": 13.4, "start_ms": START}


def test_only_a_document_of_one_object_counts_as_single() -> None:
    for body, single in ((EVENT, True), (feature(id="a"), True), ([EVENT], False), (collection(feature()), False)):
        intake = Intake(Format.JSON)
        intake.feed(orjson.dumps(body))
        intake.close()
        assert intake.single is single


def test_a_feature_gives_its_point_and_properties_with_foreign_names_kept_aside() -> None:
    [row] = read(
        collection({**feature(title="Quake", start=START, mag=4.5, nst=None), "id": "us1", "bbox": [1, 2, 3, 4]})
    )
    assert isinstance(row, Upsert)
    assert row.id == "us1"
    assert fields(row)["properties"] == '{"mag":4.5,"nst":null}'
    assert (fields(row)["longitude"], fields(row)["latitude"], fields(row)["title"]) == (13.4, 52.5, "Quake")


def test_a_features_id_comes_from_the_feature_else_its_properties_and_a_number_is_text() -> None:
    rows = read(collection({**feature(id="inner"), "id": 7}, feature(id="inner"), feature(id=12)))
    assert [row.id for row in rows] == ["7", "inner", "12"]


def test_a_third_coordinate_is_ignored_and_any_other_geometry_is_that_rows_error() -> None:
    high, line, none, short = (feature(id=name) for name in "abcd")
    high["geometry"]["coordinates"] = [13.4, 52.5, 120.0]
    line["geometry"] = {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}
    none["geometry"] = None
    short["geometry"]["coordinates"] = [13.4]
    rows = read(collection(high, line, none, short))
    assert isinstance(rows[0], Upsert)
    assert [(refusal(row).id, refusal(row).field) for row in rows[1:]] == [(name, "geometry") for name in "bcd"]
    assert "LineString, not a Point" in refusal(rows[1]).reason


def test_a_feature_without_geometry_may_take_its_place_from_a_mapping() -> None:
    row = {**feature(id="a", y="52.5", x=13.4), "geometry": None}
    [got] = read(collection(row), mapping=Mapping.of(["latitude=y", "longitude=x"]))
    assert (fields(got)["latitude"], fields(got)["longitude"]) == (52.5, 13.4)


def test_a_mapped_place_wins_over_the_geometry() -> None:
    [got] = read(collection(feature(id="a", y=1, x=2)), mapping=Mapping.of(["latitude=y", "longitude=x"]))
    assert (fields(got)["latitude"], fields(got)["longitude"]) == (1, 2)


def test_the_earthquake_feed_comes_in_with_a_mapping() -> None:
    quake = {
        **feature(mag=4.5, place="10 km N of X", time=START, felt=None, status="reviewed", title="M 4.5"),
        "id": "us1",
    }
    quake["geometry"]["coordinates"].append(10.0)
    plain = refusal(read(collection(quake))[0])
    assert plain.field == "status"
    assert "--map status=" in plain.reason
    mapping = Mapping.of(["start=time", "rsvpCount=felt", "status=", "description=place"], ["status=VERIFIED"])
    got = fields(read(collection(quake), mapping=mapping)[0])
    assert got["start_ms"] == START
    assert got["status"] == "VERIFIED"
    assert got["description"] == "10 km N of X"
    assert got["rsvp"] is None
    assert orjson.loads(got["properties"]) == {"mag": 4.5}


def test_a_left_out_field_is_nowhere_and_without_properties_nothing_foreign_is_kept() -> None:
    row = {**EVENT, "status": "odd", "mag": 3}
    assert "status" not in fields(read(row, mapping=Mapping.of(["status="]))[0])
    assert orjson.loads(fields(read(row, mapping=Mapping.of(["status="]))[0])["properties"]) == {"mag": 3}
    assert "properties" not in fields(read(row, mapping=Mapping.of(["status=", "properties="]))[0])


def test_a_path_goes_into_objects_and_lists_and_finds_a_whole_name_first() -> None:
    row = {"event": {"id": 5, "names": ["x", "Jazz"]}, "a.b": "whole", "a": {"b": "path"}, "at": "2026-05-01T18:00:00Z"}
    mapping = Mapping.of(
        ["id=event.id", "title=event.names.1", "description=a.b", "start=at"], ["latitude=1", "longitude=2"]
    )
    [got] = read(row, mapping=mapping)
    assert got.id == "5"
    assert (fields(got)["title"], fields(got)["description"]) == ("Jazz", "whole")
    assert fields(got)["start_ms"] == 1_777_658_400_000
    assert (fields(got)["latitude"], fields(got)["longitude"]) == (1.0, 2.0)


def test_a_path_that_leads_nowhere_leaves_the_field_absent() -> None:
    got = fields(read(EVENT, mapping=Mapping.of(["title=no.such", "description=title.0", "categories=location.9"]))[0])
    assert {"title", "description", "categories"}.isdisjoint(got)


def test_two_fields_can_change_places() -> None:
    row = {**EVENT, "title": "t", "description": "d"}
    got = fields(read(row, mapping=Mapping.of(["title=description", "description=title"]))[0])
    assert (got["title"], got["description"]) == ("d", "t")


def test_the_same_content_has_the_same_id_whatever_the_order_of_its_names() -> None:
    mapping = Mapping.of(["id=@content"])
    one, two, other = {**EVENT, "id": None}, {"id": None, **dict(reversed(list(EVENT.items())[1:]))}, {**EVENT, "id": 1}
    ids = [row.id for row in read(lines(one, two, other), Format.NDJSON, mapping)]
    assert ids[0] == ids[1] == content_id(one)
    assert ids[2] != ids[0]
    assert len(str(ids[0])) == 32


def test_a_mapping_that_names_no_field_of_an_event_is_refused_with_the_nearest() -> None:
    with pytest.raises(Refused, match="rsvpCount") as error:
        Mapping.of(["rsvpcount=felt"])
    assert error.value.field == "map"
    with pytest.raises(Refused, match="has no ="):
        Mapping.of([], ["status"])


@pytest.mark.parametrize(
    "name, value, field, expected",
    [
        ("rsvpCount", "12", "rsvp", 12),
        ("rsvpCount", 12.0, "rsvp", 12),
        ("scanCount", "9007199254740993", "scan", 9007199254740993),
        ("confidence", "0.5", "confidence", 0.5),
        ("categories", "music; food|art", "categories", ("music", "food", "art")),
        ("categories", '["a;b"]', "categories", ("a;b",)),
        ("categories", [1, "b", None], "categories", ("1", "b")),
        ("categories", 7, "categories", ("7",)),
        ("title", 1984, "title", "1984"),
        ("title", 2.5, "title", "2.5"),
        ("isPrivate", "Yes", "private", True),
        ("isPrivate", 0, "private", False),
        ("isPrivate", True, "private", True),
        ("status", "verified", "status", "VERIFIED"),
        ("start", str(START), "start_ms", START),
        ("start", "2026-05-01 18:00:00+02:00", "start_ms", 1_777_651_200_000),
        ("location", [13.4, 52.5], "longitude", 13.4),
        ("location", {"type": "Point", "coordinates": [13.4, 52.5, 9]}, "latitude", 52.5),
        ("location", {"latitude": 52.5, "longitude": 13.4}, "latitude", 52.5),
        ("location", "[13.4, 52.5]", "longitude", 13.4),
    ],
)
def test_mapped_values_are_converted_where_no_one_can_be_mistaken(
    name: str, value: object, field: str, expected: object
) -> None:
    row = {"id": "a", "source": value}
    assert fields(read(row, mapping=Mapping.of([f"{name}=source"]))[0])[field] == expected


@pytest.mark.parametrize(
    "name, value",
    [
        ("start", "tomorrow"),
        ("start", "2026-05-01T18:00:00"),
        ("rsvpCount", "many"),
        ("rsvpCount", 1.5),
        ("location", "52.5, 13.4"),
        ("isPrivate", "perhaps"),
        ("title", ["a"]),
    ],
)
def test_what_could_be_mistaken_is_refused_with_the_next_step(name: str, value: object) -> None:
    refused = refusal(read({"id": "a", "source": value}, mapping=Mapping.of([f"{name}=source"]))[0])
    assert (refused.id, str(refused.field).split(".")[0]) == ("a", name)
    assert "--map" in refused.reason


def test_epoch_seconds_are_not_guessed() -> None:
    got = fields(read({"id": "a", "t": 1_750_000_000}, mapping=Mapping.of(["start=t"]))[0])
    assert got["start_ms"] == 1_750_000_000


def test_a_plain_row_of_json_is_taken_strictly() -> None:
    assert refusal(read({**EVENT, "rsvpCount": "12"})[0]).field == "rsvpCount"
    assert "--map" not in refusal(read({**EVENT, "rsvpCount": "12"})[0]).reason


@pytest.mark.parametrize("names", [("latitude", "longitude"), ("lat", "lon"), ("lat", "lng")])
def test_separate_latitude_and_longitude_are_a_place(names: tuple[str, str]) -> None:
    got = fields(read({"id": "a", names[0]: 52.5, names[1]: 13.4})[0])
    assert (got["latitude"], got["longitude"]) == (52.5, 13.4)
    assert "properties" not in got


def test_csv_has_numbers_lists_places_and_absent_cells() -> None:
    text = "id,title,lat,lon,start,rsvpCount,categories,isPrivate,venue\n7,1984,52.5,13.4,2026-05-01T18:00:00Z,3,a;b|c,no,Bar\nb,,,,,,,,\n"
    first, second = read(text, Format.CSV)
    got = fields(first)
    assert (first.id, got["title"], got["rsvp"], got["categories"], got["private"]) == (
        "7",
        "1984",
        3,
        ("a", "b", "c"),
        False,
    )
    assert (got["latitude"], got["longitude"], got["properties"]) == (52.5, 13.4, '{"venue":"Bar"}')
    assert (second.id, fields(second)) == ("b", {})


def test_csv_keeps_line_ends_separators_and_quotes_inside_of_quotes() -> None:
    text = 'id,title\r\na,"two\nlines, ""quoted"""\r\nb,5" pipe\r\nc,plain\u2028one\r\n'
    rows = read(text, Format.CSV)
    assert [fields(row)["title"] for row in rows] == ['two\nlines, "quoted"', '5" pipe', "plain\u2028one"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_header_tells_the_separator(separator: str) -> None:
    text = separator.join(["id", "title"]) + "\n" + separator.join(["a", "x"]) + "\n"
    assert fields(read(text, Format.CSV)[0]) == {"title": "x"}


def test_a_csv_row_of_too_many_cells_or_not_utf8_is_its_own_error() -> None:
    rows = read(b"id,title\na,b,c\nb,\xff\nc,good\n", Format.CSV)
    assert [isinstance(row, Rejected) for row in rows] == [True, True, False]
    with pytest.raises(Refused, match="twice"):
        read("id,id\na,b\n", Format.CSV)


def test_a_broken_row_is_refused_in_its_place_and_the_good_ones_go_in() -> None:
    body = lines(EVENT) + b"{broken\n\n" + lines([1], {**EVENT, "start": "soon"}) + lines({**EVENT, "id": "z"})[:-1]
    rows = read(body, Format.NDJSON)
    assert [getattr(row, "code", row.id) for row in rows] == ["a", "bad_json", "bad_message", "bad_message", "z"]
    assert (refusal(rows[3]).id, refusal(rows[3]).field) == ("a", "start")


def test_a_row_above_the_limit_is_that_rows_error_and_is_never_held() -> None:
    intake = Intake(Format.NDJSON, row_bytes=100)
    rows = intake.feed(lines(EVENT))
    for _ in range(1000):
        rows += intake.feed(b'"' + b"x" * 1000)
    assert intake._reader._lines._held == []  # type: ignore[attr-defined]  # the point is what stays in memory
    rows += intake.feed(b"\n" + lines(EVENT)) + intake.close()
    assert [getattr(row, "code", "good") for row in rows] == ["good", "too_large", "good"]


def test_an_unclosed_quote_costs_one_row_of_csv_not_the_rest() -> None:
    text = 'id,title\na,"open\n' + "".join(f"r{n},x\n" for n in range(40))
    rows = read(text, Format.CSV, row_bytes=100)
    assert refusal(rows[0]).code == "too_large"
    assert rows[-1].id == "r39"


def test_a_document_above_the_limit_or_broken_is_refused_as_a_whole() -> None:
    with pytest.raises(Refused) as large:
        read([EVENT] * 10, document_bytes=200)
    assert (large.value.code, large.value.limit) == ("too_large", 200)
    with pytest.raises(Refused, match="NDJSON") as broken:
        read(lines(EVENT, EVENT))
    assert broken.value.code == "bad_json"


def test_a_byte_order_mark_is_no_part_of_the_first_row() -> None:
    for fmt, body in ((Format.JSON, orjson.dumps(EVENT)), (Format.NDJSON, lines(EVENT)), (Format.CSV, b"id\na\n")):
        assert [row.id for row in read(b"\xef\xbb\xbf" + body, fmt)] == ["a"]


def test_a_line_may_be_a_feature_a_whole_collection_or_a_geojson_sequence() -> None:
    body = (
        lines(feature(id="a")) + lines(collection(feature(id="b"), feature(id="c"))) + b"\x1e" + lines(feature(id="d"))
    )
    assert [row.id for row in read(body, Format.NDJSON)] == ["a", "b", "c", "d"]


def test_popularity_comes_the_same_way_without_a_mapping() -> None:
    intake = Intake(Format.NDJSON, None, op=popularity_op)
    rows = intake.feed(lines({"eventId": "a", "delta": {"rsvpCount": 1}}, {"eventId": "b"}))
    assert isinstance(rows[0], Popularity)
    assert (refusal(rows[1]).id, "delta" in refusal(rows[1]).reason) == ("b", True)


def test_events_are_handed_on_as_json_mapped_but_not_validated() -> None:
    intake = Intake(Format.NDJSON, Mapping.of(["id=n"]))
    assert intake.events(lines({"n": 5, "start": "never"})) == [{"id": "5", "start": "never"}]


def test_shifting_moves_every_time_by_what_brings_the_logs_newest_to_now() -> None:
    rows = [
        {"id": "a", "at": "2020-01-01T00:00:00Z", "start": "2020-01-02T00:00:00Z", "end": "2020-01-02T01:00:00Z"},
        {"id": "b", "at": "2020-01-01T12:00:00Z", "start": "2020-03-01T00:00:00Z", "createdAt": "2019-12-01T00:00:00Z"},
    ]
    now = 1_800_000_000_000
    mapping = shift_to_now(Format.NDJSON, PLAIN, None, [lines(*rows)], now)
    assert mapping.shift_ms == now - 1_577_880_000_000
    first, second = (fields(row) for row in read(lines(*rows), Format.NDJSON, mapping))
    assert first["start_ms"] == now + 12 * 3_600_000
    assert first["end_ms"] - first["start_ms"] == 3_600_000
    assert second["created_ms"] < now < second["start_ms"]
    assert second["start_ms"] - second["created_ms"] == 91 * 86_400_000


def test_without_a_log_time_the_newest_start_is_now_and_a_path_says_otherwise() -> None:
    rows = [{"id": "a", "when": START, "other": START + 5}, {"id": "b", "when": START - 1, "time": 90}]
    mapped = Mapping.of(["start=when"])
    assert shift_to_now(Format.NDJSON, mapped, None, [lines(*rows)], START + 10).shift_ms == 10
    assert shift_to_now(Format.NDJSON, mapped, "other", [lines(*rows)], START + 10).shift_ms == 5
    with pytest.raises(Refused, match="no row has a time at 'nowhere'") as error:
        shift_to_now(Format.NDJSON, mapped, "nowhere", [lines(*rows)], START)
    assert error.value.field == "shift"


def test_a_feature_shifts_by_its_properties_and_a_rules_end_moves_along() -> None:
    quake = feature(id="a", time=START, start=START, recurrence="FREQ=DAILY;UNTIL=20250701T000000Z")
    mapping = shift_to_now(Format.JSON, PLAIN, None, [orjson.dumps(collection(quake))], START + 86_400_000)
    got = fields(read(collection(quake), mapping=mapping)[0])
    assert got["recurrence"] == "FREQ=DAILY;UNTIL=20250702T000000Z"
    assert got["start_ms"] == START + 86_400_000


@pytest.mark.parametrize(
    "name, expected",
    [
        ("application/json; charset=utf-8", Format.JSON),
        ("quakes.geojson", Format.JSON),
        ("application/x-ndjson", Format.NDJSON),
        ("rows.JSONL", Format.NDJSON),
        ("text/csv", Format.CSV),
        ("csv", Format.CSV),
        ("text/plain", None),
        ("", None),
    ],
)
def test_the_format_is_told_by_type_or_name(name: str, expected: Format | None) -> None:
    assert format_of(name) == expected


def test_the_format_is_told_by_the_first_bytes() -> None:
    assert sniff(orjson.dumps([EVENT])) is Format.JSON
    assert sniff(orjson.dumps(EVENT, option=orjson.OPT_INDENT_2)) is Format.JSON
    assert sniff(lines(EVENT)) is Format.JSON
    assert sniff(lines(EVENT, EVENT)) is Format.NDJSON
    assert sniff(b"id,title\n") is Format.CSV


rows_of_text = st.lists(
    st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)] * 2), max_size=8
)


@given(rows_of_text, st.data())
def test_chunks_may_be_cut_anywhere(rows: list[tuple[str, str]], data: st.DataObject) -> None:
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet)
    writer.writerow(["x", "y"])
    writer.writerows(rows)
    events = [{"id": "a", "title": a, "description": b} for a, b in rows]
    for fmt, body in ((Format.CSV, sheet.getvalue().encode()), (Format.NDJSON, lines(*events))):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
        intake = Intake(fmt)
        got = []
        for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True):
            got += intake.events(body[start:stop])
        got += intake.close_events()
        whole = Intake(fmt)
        assert got == whole.events(body) + whole.close_events()
        if fmt is Format.NDJSON:
            assert got == events


@given(rows_of_text)
def test_csv_reads_what_a_csv_writer_wrote(rows: list[tuple[str, str]]) -> None:
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet)
    writer.writerow(["k", "x", "y"])
    writer.writerows(("k", *row) for row in rows)
    intake = Intake(Format.CSV)
    got = intake.events(sheet.getvalue().encode()) + intake.close_events()
    expected = [{n: c for n, c in (("k", "k"), ("x", a), ("y", b)) if c.strip()} for a, b in rows]
    assert got == expected
