"""Forms of cluster ids (`docs/messages.md`, section 2, and `docs/rest.md`, section 2.2)."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libaggregator.identifiers import InvalidClusterID, parse_cluster_id

CANONICAL = "a9d4b240-49e2-56d0-a495-f2798c5e3b2f"
DIGITS = CANONICAL.replace("-", "")


def reason(text: str) -> str:
    with pytest.raises(InvalidClusterID) as raised:
        parse_cluster_id(text)
    return str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        CANONICAL,
        CANONICAL.upper(),
        CANONICAL.title(),
        DIGITS,
        DIGITS.upper(),
        "{" + CANONICAL + "}",
        "urn:uuid:" + CANONICAL,
        "URN:UUID:" + CANONICAL.upper(),
        "Urn:uUid:" + CANONICAL,
    ],
)
def test_every_accepted_form_becomes_lower_case_with_hyphens(text: str) -> None:
    assert parse_cluster_id(text) == CANONICAL


@pytest.mark.parametrize("text", ["0" * 32, "f" * 32, "{ffffffff-ffff-ffff-ffff-ffffffffffff}"])
def test_version_and_variant_are_not_checked(text: str) -> None:
    assert parse_cluster_id(text) == str(uuid.UUID(text))


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("", 0),
        ("aaaa", 4),
        (CANONICAL[:-1], 35),
        (" " + CANONICAL, 37),
        (CANONICAL + "\n", 37),
        ("{" + DIGITS + "}", 34),
        ("urn:uuid:" + DIGITS, 41),
        ("é" * 15, 30),
        ("\ud800", 3),
    ],
)
def test_another_length_is_named_in_bytes(text: str, length: int) -> None:
    assert reason(text) == f"invalid UUID length: {length}"


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("urn:uuix:" + CANONICAL, "urn:uuix:"),
        ('"rn:uuid:' + CANONICAL, '"rn:uuid:'),
        (CANONICAL + "urn:uuid:", CANONICAL[:9]),
        ("é" * 22 + "a", "é" * 9),
    ],
)
def test_a_wrong_prefix_is_named_by_its_first_nine_characters(text: str, prefix: str) -> None:
    assert reason(text) == f'invalid urn prefix: "{prefix}"'


@pytest.mark.parametrize(
    "text",
    [
        "g" + CANONICAL[1:],
        CANONICAL[:8] + "_" + CANONICAL[9:],
        "a9d4b24-049e2-56d0-a495-f2798c5e3b2f",
        DIGITS[:-1] + "g",
        DIGITS[:-1] + "-",
        DIGITS[:-1] + "\n",
        "(" + CANONICAL + ")",
        "{" + CANONICAL + "x",
        "x" + CANONICAL + "}",
        "{" + CANONICAL[:-1] + "}}",
        "urn:uuid:{" + CANONICAL[:-2] + "}",
        "\u0660" * 18,
        "\u0660" + CANONICAL[2:],
        "\ud800" + CANONICAL[3:],
    ],
)
def test_a_right_length_with_anything_else_wrong_has_an_invalid_format(text: str) -> None:
    assert reason(text) == "invalid UUID format"


@given(st.uuids(), st.sampled_from(["{}", "{{{}}}", "urn:uuid:{}", "URN:UUID:{}"]), st.booleans())
def test_any_uuid_is_read_in_any_form_with_hyphens(value: uuid.UUID, form: str, upper: bool) -> None:
    text = str(value).upper() if upper else str(value)
    assert parse_cluster_id(form.format(text)) == str(value)
    assert parse_cluster_id(text.replace("-", "")) == str(value)


@given(st.text() | st.text(alphabet="0123456789abcdefABCDEF-{}urn:id\ud800é", min_size=30, max_size=46))
def test_any_text_gives_a_canonical_id_or_a_reason(text: str) -> None:
    try:
        canonical = parse_cluster_id(text)
    except InvalidClusterID:
        return
    assert canonical == str(uuid.UUID(text.lower()))
