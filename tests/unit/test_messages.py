r"""What makes a message usable, and what is read from it (`docs/messages.md`, sections 1 to 5 and 9)."""

import base64
import gzip
import json
import re
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libaggregator import messages, raw_json
from libaggregator.messages import Hit, InvalidMessage, Limits, Message, Reason, decode
from tests.support.messages import make_hit

DATASET = Path(__file__).parents[1] / "contract" / "dataset"
NOW = datetime(2026, 6, 1)
LIMITS = Limits()
CLUSTER = "a9d4b240-49e2-56d0-a495-f2798c5e3b2f"
NO_HITS = '{"reports": [], "fingerprints": [], "system": {}}'
EMPTY_NAMES = {"reports": "[]", "fingerprints": "[]", "system": "{}"}
ATTRIBUTES = {
    "OrgID": "900",
    "ClusterName": f'"{CLUSTER}"',
    "Report": NO_HITS,
    "LastChecked": '"2026-05-01T08:00:00Z"',
}


def object_text(attributes: dict[str, str | None]) -> str:
    """Return an object from the JSON texts of its values; None leaves an attribute out."""
    return "{" + ", ".join(f'"{name}": {text}' for name, text in attributes.items() if text is not None) + "}"


def payload(**texts: str | None) -> bytes:
    """Return a message, valid where `texts` does not say otherwise: JSON text of each attribute, None for none."""
    return object_text({**ATTRIBUTES, **texts}).encode()


def report(**texts: str | None) -> str:
    """Return a Report without hits, but for what `texts` says."""
    return object_text({**EMPTY_NAMES, **texts})


def hit(**texts: str | None) -> str:
    """Return one entry of `reports`, but for what `texts` says."""
    return object_text({"component": '"a.b.report"', "key": '"K"', **texts})


def read(value: bytes | None, limits: Limits = LIMITS) -> Message:
    return decode(value, limits, NOW)


def refusal(value: bytes | None, limits: Limits = LIMITS) -> tuple[Reason, str]:
    """Return the reason and the detail for which a payload is refused."""
    with pytest.raises(InvalidMessage) as raised:
        decode(value, limits, NOW)
    return raised.value.reason, raised.value.detail


def outcome(value: bytes | None, limits: Limits = LIMITS) -> Message | tuple[Reason, str]:
    try:
        return decode(value, limits, NOW)
    except InvalidMessage as invalid:
        return invalid.reason, invalid.detail


def dataset(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATASET / name).read_text(encoding="utf-8").splitlines()]


class Refusing:
    """A decoder that takes nothing."""

    def decode(self, text: object) -> object:
        raise msgspec.DecodeError


@pytest.fixture(params=["fast", "by parts", "slow"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with msgspec, again as if no report were plain, and again with the scanner in msgspec's place."""
    if request.param != "fast":
        monkeypatch.setattr(messages, "_PLAIN_REPORT", Refusing())
        monkeypatch.setattr(messages, "_PLAIN_INFO", Refusing())
    if request.param == "slow":
        monkeypatch.setattr(raw_json.ObjectReader, "read", raw_json.ObjectReader.scan)
        monkeypatch.setattr(messages, "read_array", raw_json.elements)


both_ways = pytest.mark.usefixtures("way")


# The examples of the contract


@both_ways
@pytest.mark.parametrize("example", dataset("bad_messages.jsonl"), ids=lambda example: str(example["name"]))
def test_each_example_has_the_outcome_that_the_contract_names(example: dict[str, Any]) -> None:
    found = outcome(base64.b64decode(example["payload_b64"]))
    if isinstance(found, Message):
        assert example["expect"] == ("skipped" if found.is_empty else "stored")
    else:
        assert example["expect"] == "rejected"


@both_ways
def test_the_examples_have_each_outcome_as_often_as_the_contract_says() -> None:
    counts: Counter[str] = Counter()
    for example in dataset("bad_messages.jsonl"):
        found = outcome(base64.b64decode(example["payload_b64"]))
        if isinstance(found, Message):
            counts["empty_report" if found.is_empty else "stored"] += 1
        else:
            counts[found[0].value] += 1
    assert counts == {
        "stored": 38,
        "empty_report": 1,
        "not_json": 15,
        "bad_compression": 1,
        "missing_attribute": 10,
        "bad_attribute": 24,
        "from_the_future": 1,
        "bad_report": 16,
    }


@both_ways
def test_the_messages_of_the_data_set_are_read_as_a_parser_reads_them() -> None:
    for line in (DATASET / "messages.jsonl").read_bytes().splitlines():
        expected = json.loads(line)
        message = read(line, Limits(max_future_skew=timedelta.max))
        assert message.org_id == expected["OrgID"]
        assert message.cluster == expected["ClusterName"].lower()
        assert json.loads(message.report) == expected["Report"]
        assert message.report.encode() in line
        hits = {(entry["component"], entry["key"]): entry["details"] for entry in expected["Report"].get("reports", [])}
        assert {(hit.component, hit.error_key): json.loads(hit.details) for hit in message.hits} == hits
        assert all(hit.details.encode() in line for hit in message.hits)


@both_ways
def test_everything_in_a_message_is_read() -> None:
    text = report(
        reports="[" + hit(details='{"x":  1.0}') + "," + hit(component='"c"', key='"L"') + "]",
        info='[{"info_id": "version_info|CLUSTER_VERSION_INFO", "details": {"version": "4.16.1"}}]',
    )
    value = payload(
        Report=text,
        Version="2",
        Metadata='{"gathering_time": "2026-05-01T07:30:00.5+01:00"}',
        RequestId='"abc"',
        AccountNumber="[]",
    )
    assert read(value) == Message(
        org_id=900,
        cluster=CLUSTER,
        report_json=msgspec.Raw(text.encode()),
        last_checked_at=datetime(2026, 5, 1, 8),
        gathered_at=datetime(2026, 5, 1, 6, 30, 0, 500_000),
        hits=(make_hit("a.b.report", "K", '{"x":  1.0}'), make_hit("c", "L", "null")),
        cluster_version="4.16.1",
        version=2,
        request_id="abc",
        is_empty=False,
    )


def test_a_hit_knows_its_rule() -> None:
    assert make_hit("a.b.report", "K", "null").rule_fqdn == "a.b"
    assert make_hit("a.b.report", "K", "null").rule_selector == make_hit("a.b", "K", "null").rule_selector == "a.b|K"


# Section 5: reasons, their order, their details


def test_the_reasons_are_the_closed_list_of_the_contract() -> None:
    assert [reason.value for reason in Reason] == [
        "too_large",
        "bad_compression",
        "not_json",
        "missing_attribute",
        "bad_attribute",
        "from_the_future",
        "bad_report",
        "not_storable",
    ]


@both_ways
def test_the_first_reason_that_applies_is_the_one() -> None:
    limits = Limits(max_bytes=1_000)
    broken: dict[str, str | None] = {
        "OrgID": None,
        "ClusterName": '""',
        "LastChecked": '"2026-06-03T00:00:00Z"',
        "Report": report(reports="{}"),
    }
    long = payload(**broken, Padding='"' + "x" * 1_000 + '"')
    assert refusal(long, limits)[0] == Reason.TOO_LARGE
    assert refusal(gzip.compress(long)[:-1], limits)[0] == Reason.TOO_LARGE
    assert refusal(gzip.compress(payload(**broken)[:-1])[:-1], limits)[0] == Reason.BAD_COMPRESSION
    assert refusal(gzip.compress(payload(**broken)[:-1]), limits)[0] == Reason.NOT_JSON
    assert refusal(payload(**broken), limits)[0] == Reason.MISSING_ATTRIBUTE
    broken["OrgID"] = "1"
    assert refusal(payload(**broken), limits)[0] == Reason.BAD_ATTRIBUTE
    broken["ClusterName"] = ATTRIBUTES["ClusterName"]
    assert refusal(payload(**broken), limits)[0] == Reason.FROM_THE_FUTURE
    broken["LastChecked"] = ATTRIBUTES["LastChecked"]
    assert refusal(payload(**broken), limits)[0] == Reason.BAD_REPORT
    broken["Report"] = NO_HITS
    assert read(payload(**broken), limits).hits == ()


def test_an_empty_report_is_checked_like_any_other_message() -> None:
    assert refusal(payload(Report="{}", Version="256"))[0] == Reason.BAD_ATTRIBUTE
    assert refusal(payload(Report="{}", LastChecked='"2027-01-01T00:00:00Z"'))[0] == Reason.FROM_THE_FUTURE


@pytest.mark.parametrize(
    ("texts", "detail"),
    [
        ({"OrgID": '"secret"'}, "OrgID: expected an integer from 1 to 4294967295"),
        ({"OrgID": None}, "OrgID: required, but absent or null"),
        ({"ClusterName": '"urn:secret' + "x" * 34 + '"'}, "ClusterName: expected a UUID"),
        ({"Report": "[]"}, "Report: expected an object"),
        ({"Version": "300"}, "Version: expected an integer from 0 to 255"),
        ({"LastChecked": '"2026-06-02T00:00:01Z"'}, "LastChecked: expected at most 1 day, 0:00:00 ahead of the clock"),
        ({"Report": report(reports='{"secret": 1}')}, "Report.reports: expected an array"),
        ({"Report": report(reports=f"[{hit()}, 1]")}, "Report.reports[1]: expected an object"),
        ({"Report": report(info="{}")}, "Report.info: expected an array"),
        (
            {"Report": report(fingerprints=None, secret="1")},
            "Report: expected also fingerprints, since it is not empty",
        ),
        (
            {"Report": report(reports=f"[{hit(key=None)}]")},
            "Report.reports[0].key: expected a text that is not empty, without NUL and lone surrogates",
        ),
    ],
)
def test_the_detail_names_the_attribute_and_what_was_expected(texts: dict[str, str | None], detail: str) -> None:
    assert refusal(payload(**texts))[1] == detail
    with pytest.raises(InvalidMessage, match=re.escape(detail)):
        read(payload(**texts))


# Section 1: the record


@pytest.mark.parametrize(
    "value",
    [None, b"", b"   ", b"\n", b"null", b"[]", b"42", b'"x"', b"true", b"hello", b"[{}]"],
    ids=repr,
)
def test_anything_but_an_object_is_not_json(value: bytes | None) -> None:
    assert refusal(value)[0] == Reason.NOT_JSON


@both_ways
def test_white_space_around_the_object_is_fine() -> None:
    assert read(b" \t\r\n" + payload() + b"\n \r\t") == read(payload())


@both_ways
@pytest.mark.parametrize("rest", [b"x", b"{}", b",", b"\x00", b"}", b"\x0c", b"\xc2\xa0"])
def test_bytes_after_the_object_are_refused(rest: bytes) -> None:
    assert refusal(payload() + rest)[0] == Reason.NOT_JSON


@pytest.mark.parametrize(
    "value",
    [
        b"\xef\xbb\xbf" + payload(),
        b"\xff\xfe" + payload().decode().encode("utf-16-le"),
        payload().decode().encode("utf-16-le"),
        payload().decode().encode("utf-16-be"),
        payload().decode().encode("utf-32"),
        gzip.compress(b"\xef\xbb\xbf" + payload(), mtime=0),
        gzip.compress(gzip.compress(payload(), mtime=0), mtime=0),
    ],
    ids=repr,
)
def test_byte_order_marks_and_other_encodings_are_refused(value: bytes) -> None:
    assert refusal(value)[0] == Reason.NOT_JSON


@both_ways
@pytest.mark.parametrize(
    "piece",
    [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xed\xa0\x80\xed\xb0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe9"],
)
def test_bytes_that_are_not_utf8_are_refused_wherever_they_stand(piece: bytes) -> None:
    places = (
        payload(Unknown='"@"'),
        payload().replace(b"{", b'{"@": 1, ', 1),
        payload(RequestId='"@"'),
        payload(Report=report(skips='"@"')),
        payload(Report=report(reports=f'[{hit(details="""{"x": ["@"]}""")}]')),
    )
    for place in places:
        assert outcome(place) == read(place)
        assert refusal(place.replace(b"@", piece)) == (Reason.NOT_JSON, "expected UTF-8")


@both_ways
@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "01", "1.", "+1", "nul", '"\\x"', '"\t"', "[1,]", "{"]
)
def test_what_is_not_json_is_refused_also_where_it_is_not_used(value: str) -> None:
    for name in ("Unknown", "AccountNumber", "Metadata"):
        assert refusal(payload(**{name: value}))[0] == Reason.NOT_JSON
    assert refusal(payload(Report=report(system=value)))[0] == Reason.NOT_JSON
    assert refusal(payload(Report=report(reports=f"[{hit(details=value)}]")))[0] == Reason.NOT_JSON


def test_gzip_is_read_also_in_several_members() -> None:
    text = payload()
    assert read(gzip.compress(text)) == read(gzip.compress(text[:50]) + gzip.compress(text[50:])) == read(text)


@pytest.mark.parametrize("rest", [b"\x00", b"\x00" * 8, b"x", b"\n"])
def test_gzip_with_bytes_after_its_end_is_bad_compression(rest: bytes) -> None:
    assert refusal(gzip.compress(payload()) + rest)[0] == Reason.BAD_COMPRESSION


def test_the_size_limit_holds_as_it_came_and_inflated() -> None:
    text = payload()
    exact = Limits(max_bytes=len(text))
    assert read(text, exact) == read(gzip.compress(text), exact) == read(text)
    less = Limits(max_bytes=len(text) - 1)
    assert refusal(text, less) == (Reason.TOO_LARGE, f"expected at most {len(text) - 1} bytes")
    assert refusal(gzip.compress(text), less)[0] == Reason.TOO_LARGE


def test_the_size_limit_is_10_mib_by_default() -> None:
    padded = payload() + b" " * (10_485_760 - len(payload()))
    assert read(padded) == read(payload())
    assert refusal(padded + b" ")[0] == Reason.TOO_LARGE
    assert refusal(gzip.compress(padded + b" ", 1))[0] == Reason.TOO_LARGE


@both_ways
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"[{": ', "}")])
def test_nesting_is_allowed_to_exactly_the_limit(opening: str, closing: str) -> None:
    def nested(levels: int) -> str:
        return opening * levels + '"[{"' + closing * levels

    details = nested(500 - 4)  # within the message, Report, reports and the hit
    assert read(payload(Report=report(reports=f"[{hit(details=details)}]"))).hits[0].details == details
    for deeper in (payload(Report=report(reports=f"[{hit(details=nested(497))}]")), payload(Unknown=nested(500))):
        assert refusal(deeper) == (Reason.NOT_JSON, "expected at most 500 levels of nesting")
        assert refusal(gzip.compress(deeper)) == refusal(deeper)
    assert read(payload(Unknown=nested(499))) == read(payload())


@pytest.mark.parametrize("levels", [900, 1_100, 99_000])
def test_a_higher_limit_of_nesting_is_not_cut_by_the_interpreter(levels: int) -> None:
    details = '{"x":' * levels + "1" + "}" * levels
    value = payload(Report=report(reports=f"[{hit(details=details)}]"))
    assert read(value, Limits(max_nesting=levels + 4)).hits[0].details == details
    assert refusal(value, Limits(max_nesting=levels + 3))[0] == Reason.NOT_JSON


def test_many_brackets_that_do_not_nest_are_fine() -> None:
    details = "[" + "[{}]," * 2_000 + "1]"
    assert read(payload(Report=report(reports=f"[{hit(details=details)}]"))).hits[0].details == details


# Names


@both_ways
def test_an_attribute_given_twice_counts_as_the_last_says() -> None:
    assert read(payload().replace(b'"OrgID": 900', b'"OrgID": "x", "OrgID": 901')).org_id == 901
    assert read(payload().replace(b'"OrgID": 900', b'"OrgID": null, "\\u004frgID": 902')).org_id == 902
    twice = payload().replace(b'"OrgID": 900', b'"OrgID": 900, "OrgID": null')
    assert refusal(twice) == (Reason.MISSING_ATTRIBUTE, "OrgID: required, but absent or null")
    hits = "[" + hit(component='"x", "component": "y"', details='1, "details": {"z": 2}') + "]"
    assert read(payload(Report=report(reports=f'0, "reports": {hits}'))).hits == (make_hit("y", "K", '{"z": 2}'),)


@both_ways
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_names_are_case_sensitive_and_exact(name: str) -> None:
    for other in (name.lower(), name.upper().replace("REPORT", "rEPORT"), f" {name}", f"{name}\\u0000"):
        value = payload().replace(f'"{name}"'.encode(), f'"{other}"'.encode())
        assert refusal(value) == (Reason.MISSING_ATTRIBUTE, f"{name}: required, but absent or null")


@both_ways
def test_names_are_case_sensitive_on_every_level() -> None:
    assert refusal(payload(Report=report(reports=f"[{hit(key=None, Key='1')}]")))[0] == Reason.BAD_REPORT
    assert refusal(payload(Report=report(system=None, System='{"hostname": 1}')))[0] == Reason.BAD_REPORT
    assert read(payload(Metadata='{"Gathering_time": "2026-05-01T08:00:00Z"}')).gathered_at is None


@both_ways
def test_unknown_attributes_are_ignored_everywhere() -> None:
    extra = {"x": "[1]", "": "{}", "orgid": '"x"', "\\ud800": '"\\udfff"'}
    value = payload(
        Report=report(reports=f"[{hit(**extra)}]", **extra), Metadata=object_text({**extra, "y": "1"}), **extra
    )
    assert read(value).hits == (make_hit("a.b.report", "K", "null"),)


# Section 2: attributes


@both_ways
@pytest.mark.parametrize("name", ["OrgID", "ClusterName", "LastChecked", "Report"])
@pytest.mark.parametrize("text", [None, "null"])
def test_a_required_attribute_that_is_absent_or_null_is_missing(name: str, text: str | None) -> None:
    assert refusal(payload(**{name: text})) == (
        Reason.MISSING_ATTRIBUTE,
        f"{name}: required, but absent or null",
    )


def test_missing_attributes_are_looked_for_in_the_order_of_the_contract() -> None:
    attributes: dict[str, str | None] = dict.fromkeys(ATTRIBUTES)
    for name in ("OrgID", "ClusterName", "LastChecked", "Report"):
        assert refusal(payload(**attributes))[1].startswith(f"{name}:")
        attributes[name] = ATTRIBUTES[name]


@both_ways
@pytest.mark.parametrize("text", ["1", "900", "2147483648", "4294967295"])
def test_an_organization_is_an_integer_in_range(text: str) -> None:
    assert read(payload(OrgID=text)).org_id == int(text)


@both_ways
@pytest.mark.parametrize(
    "text",
    [
        *("0", "-0", "-1", "4294967296", "9999999999", "18446744073709551616", "1" * 5_000),
        *("900.0", "900.5", "9e2", "1E0", '"900"', '""', "true", "false", "[1]", "{}"),
    ],
    ids=lambda text: text[:20],
)
def test_any_other_organization_is_a_bad_attribute(text: str) -> None:
    assert refusal(payload(OrgID=text)) == (
        Reason.BAD_ATTRIBUTE,
        "OrgID: expected an integer from 1 to 4294967295",
    )


@both_ways
@pytest.mark.parametrize(
    "text",
    [CLUSTER.upper(), CLUSTER.replace("-", ""), "{" + CLUSTER + "}", "URN:UUID:" + CLUSTER, "\\u0061" + CLUSTER[1:]],
)
def test_a_cluster_is_read_in_every_form(text: str) -> None:
    assert read(payload(ClusterName=f'"{text}"')).cluster == CLUSTER


@both_ways
@pytest.mark.parametrize(
    "text",
    ['""', f'" {CLUSTER}"', f'"{CLUSTER}\\n"', f'"{CLUSTER[:-1]}g"', '"\\ud800"', '"\\u0000"', "1", "[]", "{}", "true"],
)
def test_any_other_cluster_is_a_bad_attribute(text: str) -> None:
    assert refusal(payload(ClusterName=text)) == (Reason.BAD_ATTRIBUTE, "ClusterName: expected a UUID")


@both_ways
def test_the_time_of_the_check_is_converted_and_rounded() -> None:
    value = payload(LastChecked='"2026-05-01T08:00:00.1234565+02:00"')
    assert read(value).last_checked_at == datetime(2026, 5, 1, 6, 0, 0, 123_456)
    assert read(payload(LastChecked='"0001-01-01T00:00:00Z"')).last_checked_at == datetime.min


@both_ways
@pytest.mark.parametrize(
    "text",
    [
        '""',
        '"2026-05-01 08:00:00Z"',
        '"2026-05-01T08:00:00"',
        '"2026-02-29T08:00:00Z"',
        '"0001-01-01T00:00:00+05:00"',
        '"9999-12-31T23:59:59.9999995Z"',
        '"2026-05-01T08:00:00Z\\u0000"',
        '"\\ud800"',
        "1777622400",
        "[]",
        "{}",
        "false",
    ],
)
def test_any_other_time_of_the_check_is_a_bad_attribute(text: str) -> None:
    reason, detail = refusal(payload(LastChecked=text))
    assert reason == Reason.BAD_ATTRIBUTE
    assert detail.startswith("LastChecked: expected YYYY-MM-DDThh:mm:ss")


def test_a_check_may_be_ahead_of_the_clock_by_exactly_the_skew() -> None:
    assert read(payload(LastChecked='"2026-06-02T00:00:00Z"')).last_checked_at == NOW + timedelta(days=1)
    assert read(payload(LastChecked='"2026-06-02T00:00:00.0000005Z"')).last_checked_at == NOW + timedelta(days=1)
    assert refusal(payload(LastChecked='"2026-06-02T00:00:00.000001Z"'))[0] == Reason.FROM_THE_FUTURE
    assert refusal(payload(LastChecked='"2026-06-02T00:00:00-00:01"'))[0] == Reason.FROM_THE_FUTURE
    none = Limits(max_future_skew=timedelta(0))
    assert refusal(payload(LastChecked='"2026-06-01T00:00:00.000001Z"'), none)[0] == Reason.FROM_THE_FUTURE


def test_a_skew_beyond_all_times_allows_any() -> None:
    value = payload(LastChecked='"9999-12-31T23:59:59Z"')
    assert read(value, Limits(max_future_skew=timedelta.max)).last_checked_at == datetime(9999, 12, 31, 23, 59, 59)


@both_ways
@pytest.mark.parametrize("text", ['"x"', "[]", "1", "null", "true"])
def test_a_report_must_be_an_object(text: str) -> None:
    reason = Reason.MISSING_ATTRIBUTE if text == "null" else Reason.BAD_ATTRIBUTE
    assert refusal(payload(Report=text))[0] == reason


@both_ways
@pytest.mark.parametrize(
    ("text", "version"), [(None, None), ("null", None), ("0", 0), ("-0", 0), ("1", 1), ("3", 3), ("255", 255)]
)
def test_a_version_is_optional_and_any_of_8_bits(text: str | None, version: int | None) -> None:
    assert read(payload(Version=text)).version == version


@both_ways
@pytest.mark.parametrize(
    "text", ["-1", "256", "1.0", "1e0", '"1"', "true", "[]", "{}", "9" * 5_000], ids=lambda t: t[:9]
)
def test_any_other_version_is_a_bad_attribute(text: str) -> None:
    assert refusal(payload(Version=text)) == (Reason.BAD_ATTRIBUTE, "Version: expected an integer from 0 to 255")


@both_ways
@pytest.mark.parametrize(
    "text",
    [
        *(None, "null", '"x"', "[]", "1", "true", "{}"),
        '{"gathering_time": null}',
        '{"gathering_time": 1777622400}',
        '{"gathering_time": ""}',
        '{"gathering_time": "2026-05-01"}',
        '{"gathering_time": "2026-05-01T08:00:00"}',
        '{"gathering_time": "\\ud800"}',
        '{"gathering_time": ["2026-05-01T08:00:00Z"]}',
        '{"gathering_time": "0001-01-01T00:00:00Z"}',
        '{"gathering_time": "0001-01-01T05:00:00+05:00"}',
        '{"gathering_time": "0001-01-01T00:00:00+05:00"}',
        '{"gathering_time": "9999-12-31T23:59:59.9999999Z"}',
        '{"gathering_time": "2026-05-01T08:00:00Z", "gathering_time": null}',
    ],
)
def test_an_unusable_gathering_time_counts_as_none(text: str | None) -> None:
    assert read(payload(Metadata=text)).gathered_at is None


@both_ways
def test_a_gathering_time_is_read_like_the_time_of_the_check_and_may_be_ahead() -> None:
    value = payload(Metadata='{"x": "\\ud800", "gathering_time": "2027-01-01T00:00:00.9999995-01:00"}')
    assert read(value).gathered_at == datetime(2027, 1, 1, 1, 0, 1)


@both_ways
@pytest.mark.parametrize(
    ("text", "request_id"),
    [
        (None, ""),
        ("null", ""),
        ('""', ""),
        ('"abc"', "abc"),
        ("12", "12"),
        ("[1, 2]", "[1, 2]"),
        ('"\\ud800x"', "?x"),
        ('"' + "é" * 300 + '"', "é" * 200),
        ("1" * 5_000, "1" * 200),
        ('["' + "é" * 300 + '"]', '["' + "é" * 198),
    ],
    ids=lambda text: str(text)[:20],
)
def test_a_request_id_is_a_short_text_whatever_it_was(text: str | None, request_id: str) -> None:
    assert read(payload(RequestId=text)).request_id == request_id


# Section 3: Report


@both_ways
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{ \n}",
        '{"reports": [], "system": {"hostname": null}, "info": []}',
        '{"reports": [], "system": {"x": 1}}',
        '{"reports": [], "system": {"hostname": "", "x": 1}}',
        '{"reports": [], "system": {"hostname": "h", "hostname": ""}}',
        '{"system": null}',
        '{"system": []}',
        '{"analysis_metadata": {"x": 1}}',
        '{"analysis_metadata": "x", "reports": []}',
        '{"reports": null, "fingerprints": [], "system": {}}',
        '{"reports": null, "fingerprints": null, "system": null}',
        '{"reports": [], "fingerprints": []}',
        '{"fingerprints": [], "system": {}}',
        '{"reports": {}, "skips": [ ], "x": {\n}, "info": null}',
        '{"x": 1, "x": []}',
        '{"\\ud800": []}',
    ],
)
def test_a_report_that_lacks_a_name_and_holds_nothing_is_empty(text: str) -> None:
    message = read(payload(Report=text))
    assert message.is_empty
    assert (message.hits, message.cluster_version, message.report) == ((), None, text)


@both_ways
@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1}',
        '{"reports": [], "system": {"hostname": "h"}}',
        '{"reports": [], "system": {"hostname": "\\ud800"}}',
        '{"reports": [], "system": {"hostname": {}}}',
        '{"reports": [], "system": {"hostname": []}}',
        '{"reports": [], "system": {"hostname": false}}',
        '{"reports": [], "system": ""}',
        '{"reports": [], "system": [0]}',
        '{"reports": [], "fingerprints": ""}',
        '{"reports": [], "fingerprints": {"hostname": null}}',
        '{"reports": [], "fingerprints": [], "skips": [null]}',
        '{"reports": null, "fingerprints": [], "system": {}, "pass": false}',
        '{"reports": [{}], "system": {}}',
        '{"system": {}, "fingerprints": [], "info": 0}',
        '{"Analysis_metadata": {"x": 1}}',
        '{"x": [], "x": 1}',
        '{"\\ud800": 1}',
    ],
)
def test_a_report_that_lacks_a_name_and_holds_something_is_refused(text: str) -> None:
    assert refusal(payload(Report=text))[0] == Reason.BAD_REPORT


@both_ways
@pytest.mark.parametrize(
    "text",
    [
        NO_HITS,
        '{"reports": [], "fingerprints": null, "system": null}',
        '{"reports": [], "fingerprints": "x", "system": 1}',
        '{"reports": [ ], "fingerprints": [], "system": {}, "info": null, "skips": 1, "pass": {}}',
        '{"reports": [], "fingerprints": "\\ud800", "system": {"\\udfff": 1}}',
        '{ "reports":[],"fingerprints":[],"system":{"\u00e9":1.50e+10, "x":[1 ,2]}  }',
    ],
)
def test_a_report_with_all_names_is_stored_byte_for_byte_also_without_hits(text: str) -> None:
    message = read(payload(Report=text))
    assert not message.is_empty
    assert (message.hits, message.cluster_version, message.report) == ((), None, text)


@both_ways
@pytest.mark.parametrize("text", ["{}", '"x"', "1", "true", '{"x": []}'])
def test_reports_that_are_no_array_are_refused(text: str) -> None:
    assert refusal(payload(Report=report(reports=text))) == (Reason.BAD_REPORT, "Report.reports: expected an array")


@both_ways
@pytest.mark.parametrize("text", ["{}", '"x"', "1", "true"])
def test_info_that_is_no_array_is_refused(text: str) -> None:
    assert refusal(payload(Report=report(info=text))) == (Reason.BAD_REPORT, "Report.info: expected an array")


# Section 4: hits and info


def hits_of(*entries: str) -> tuple[Hit, ...]:
    return read(payload(Report=report(reports=f"[{', '.join(entries)}]"))).hits


@both_ways
@pytest.mark.parametrize("name", ["component", "key"])
@pytest.mark.parametrize("text", [None, "null", '""', "1", "true", "[]", "{}", '["x"]', '"\\u0000"', '"x\\ud800"'])
def test_a_hit_without_a_usable_component_and_key_is_refused(name: str, text: str | None) -> None:
    value = payload(Report=report(reports=f"[{hit()}, {hit(**{name: text})}, {hit()}]"))
    reason, detail = refusal(value)
    assert reason == Reason.BAD_REPORT
    assert detail.startswith(f"Report.reports[1].{name}: expected a text")


@both_ways
def test_a_component_must_hold_more_than_a_trailing_report() -> None:
    assert refusal(payload(Report=report(reports=f"""[{hit(component='".report"')}]""")))[0] == Reason.BAD_REPORT
    assert hits_of(hit(component='".report.report"'))[0].rule_fqdn == ".report"
    assert hits_of(hit(key='".report"'))[0].error_key == ".report"


@both_ways
@pytest.mark.parametrize("text", [" ", "a b", "\\n", "\\u0001", "é", "\\ud83d\\ude00", "\\\\|\\\"'", "x" * 10_000])
def test_any_other_character_is_fine_in_component_and_key(text: str) -> None:
    expected = json.loads(f'"{text}"')
    assert hits_of(hit(component=f'"{text}"', key=f'"{text}"')) == (make_hit(expected, expected, "null"),)


@both_ways
@pytest.mark.parametrize("entry", ["1", "null", "[]", '"x"', "true"])
def test_an_entry_that_is_no_object_is_refused(entry: str) -> None:
    value = payload(Report=report(reports=f"[{hit()}, {entry}]"))
    assert refusal(value) == (Reason.BAD_REPORT, "Report.reports[1]: expected an object")


@both_ways
@pytest.mark.parametrize(
    "details",
    [
        *("null", "0", "1.0", "-0", "true", '""', "[]", "{ }", "1e400", "1" * 400, "1" * 5_000),
        '{"b": 1,\n "a" : [1.50, 2E+3 ], "a": null}',
        '"\\ud800"',
        '{"\\udfff": ["\\u0000", "\\/", "é", "\\u00e9"]}',
    ],
    ids=lambda text: text[:20],
)
def test_details_are_kept_byte_for_byte(details: str) -> None:
    assert hits_of(hit(details=f" {details}\n")) == (make_hit("a.b.report", "K", details),)


def test_absent_details_count_as_null() -> None:
    assert hits_of(hit(details=None)) == hits_of(hit(details="null")) == (make_hit("a.b.report", "K", "null"),)


@both_ways
def test_of_hits_with_equal_component_and_key_the_last_counts() -> None:
    other = hit(key='"L"', details="2")
    assert hits_of(hit(details="1"), other, hit(details="3")) == (
        make_hit("a.b.report", "K", "3"),
        make_hit("a.b.report", "L", "2"),
    )
    assert hits_of(hit(details="1"), hit(key='"\\u004b"')) == (make_hit("a.b.report", "K", "null"),)


@both_ways
def test_hits_that_differ_in_a_trailing_report_only_are_two() -> None:
    hits = hits_of(hit(component='"x"', details="1"), hit(component='"x.report"', details="2"))
    assert hits == (make_hit("x", "K", "1"), make_hit("x.report", "K", "2"))
    assert {hit.rule_selector for hit in hits} == {"x|K"}


def version_entry(version: str, **texts: str | None) -> str:
    details = object_text({"version": version})
    return object_text({"info_id": '"version_info|CLUSTER_VERSION_INFO"', "details": details, **texts})


def version_of(*entries: str) -> str | None:
    return read(payload(Report=report(info=f"[{', '.join(entries)}]"))).cluster_version


@both_ways
def test_the_last_usable_version_counts() -> None:
    assert version_of() is None
    assert version_of(version_entry('"4.15"')) == "4.15"
    assert version_of(version_entry('"4.15"'), version_entry('"4.16"'), version_entry('""'), "1") == "4.16"
    assert version_of('"\\ud800"', version_entry('"\\u0034.15"', x='"\\ud800"')) == "4.15"


@both_ways
@pytest.mark.parametrize(
    "entry",
    [
        *("1", "null", "[]", '"x"', "{}", '"version_info|CLUSTER_VERSION_INFO"'),
        version_entry('"4.16"', info_id=None),
        version_entry('"4.16"', info_id="null"),
        version_entry('"4.16"', info_id="1"),
        version_entry('"4.16"', info_id='"version_info|cluster_version_info"'),
        version_entry('"4.16"', info_id='"other|INFO"'),
        version_entry('"4.16"', details=None),
        version_entry('"4.16"', details='"4.16"'),
        version_entry('"4.16"', details='["version"]'),
        version_entry('"4.16"', details='{"Version": "4.16"}'),
        *(version_entry(text) for text in ("null", '""', "4.16", '["4.16"]', '"4\\u0000"', '"\\ud800"')),
    ],
)
def test_any_other_entry_of_info_is_ignored(entry: str) -> None:
    assert version_of(entry) is None
    assert version_of(version_entry('"4.15"'), entry) == "4.15"


# Properties

surrogate_pieces = [r"\ud800", r"\udfff", r"\ud83d\ude00"]
texts = st.lists(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\') | st.sampled_from(surrogate_pieces),
    max_size=5,
).map("".join)
quoted = texts.map('"{}"'.format)
scalar_texts = quoted | st.sampled_from(["null", "true", "0", "-0", "1.50", "1E+2", "1" * 5_000, "{}", "[ ]"])


def nested_texts(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.lists(values, max_size=3).map(lambda items: "[" + " , ".join(items) + "]")
    objects = st.lists(st.builds("{} :\t{}".format, quoted, values), max_size=3)
    return arrays | objects.map(lambda items: "{" + ",\n".join(items) + "}")


json_texts = st.recursive(scalar_texts, nested_texts, max_leaves=8)
components = st.sampled_from(['"a"', '"a.report"', '"\\u0061"']) | quoted
entries = st.builds(hit, component=components, details=json_texts | st.none(), x=json_texts)
infos = st.sampled_from([version_entry('"4.16"'), version_entry("1")]) | json_texts


def mostly(usual: st.SearchStrategy[str], rare: st.SearchStrategy[str | None]) -> st.SearchStrategy[str | None]:
    return st.integers(0, 9).flatmap(lambda number: usual if number else rare)


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).map(lambda items: f"[{', '.join(items)}]")


reports = st.builds(
    report,
    reports=mostly(arrays(entries), arrays(json_texts) | json_texts | st.none()),
    info=mostly(arrays(infos), json_texts | st.none()),
    system=mostly(json_texts, st.none() | st.just('{"hostname": null}')),
    skips=json_texts | st.none(),
)
times = mostly(st.just('"2026-05-01T08:00:00.1234567+02:00"'), st.sampled_from(['"2030-01-01T00:00:00Z"', '"2026"']))
likely_messages = st.fixed_dictionaries(
    {"Report": mostly(reports, json_texts)},
    optional={
        "LastChecked": times,
        "Version": mostly(st.sampled_from(["0", "255", "null"]), json_texts),
        "Metadata": times.map('{{"gathering_time": {}}}'.format) | json_texts,
        "RequestId": json_texts,
        "Unknown": json_texts,
    },
).map(lambda texts: payload(**texts))


@st.composite
def damaged_messages(draw: st.DrawFn) -> bytes:
    """Return a message with some bytes cut out or put over others."""
    value = draw(likely_messages)
    start = draw(st.integers(0, len(value)))
    end = start + draw(st.integers(0, 3))
    return value[:start] + draw(st.binary(max_size=2) | st.sampled_from([b'"', b"}", b"{", b",", b"\\"])) + value[end:]


@given(json_texts)
def test_any_details_come_out_byte_for_byte(details: str) -> None:
    text = report(reports=f"[{hit(details=details)}]", skips=details)
    message = read(payload(Report=text, Unknown=details))
    assert message.hits == (make_hit("a.b.report", "K", details),)
    assert message.report == text


@settings(max_examples=150)
@given(likely_messages | damaged_messages())
def test_both_ways_have_one_outcome(value: bytes) -> None:
    expected = outcome(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_json.ObjectReader, "read", raw_json.ObjectReader.scan)
        patch.setattr(messages, "read_array", raw_json.elements)
        assert outcome(value) == expected


@settings(max_examples=150)
@given(st.binary() | damaged_messages() | st.binary().map(b"\x1f\x8b\x08\x00".__add__))
def test_any_bytes_give_a_message_or_a_reason_with_a_printable_detail(value: bytes) -> None:
    found = outcome(value)
    if isinstance(found, tuple):
        reason, detail = found
        assert reason != Reason.NOT_STORABLE
        assert detail.isprintable()
        assert 0 < len(detail) <= 1_000


def test_msgspec_still_refuses_what_the_slower_way_is_for() -> None:
    """If it ever takes these, the slower way is needed less often."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(rb'"\ud800"', type=msgspec.Raw)
    with pytest.raises(RecursionError):
        msgspec.json.decode(b"[" * 2_000 + b"]" * 2_000, type=msgspec.Raw)
