r"""JSON taken apart (`docs/messages.md`, section 5, "Where the parser alone is not enough").

Python's `json`, told to be strict, is the independent judge of what is valid and what it says.
"""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libaggregator.raw_json import (
    InvalidJSON,
    ObjectReader,
    elements,
    is_nested_deeper,
    members,
    read_array,
    read_string,
)


class Pair(msgspec.Struct):
    first: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="a")
    second: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="b")


READER = ObjectReader(Pair)

VALID_VALUES = [
    b"null",
    b"true",
    b"false",
    b"0",
    b"-0",
    b"10",
    b"-1.50",
    b"1e5",
    b"1E+07",
    b"0.0e-0",
    b"1e999",
    b"1" * 5_000,
    b"-" + b"9" * 5_000 + b".5e" + b"9" * 5_000,
    b'""',
    b'"\x7f \xc3\xa9 \xf0\x9f\x98\x80 \xef\xbb\xbf"',
    rb'"\"\\\/\b\f\n\r\t\u00e9\u0000"',
    rb'"\ud83d\ude00"',
    rb'"\ud800"',
    rb'"\uDC00\uD800"',
    rb'"\ud800\u0041"',
    rb'{"\ud800": {"\udfff": 1}}',
    b"[]",
    b"{}",
    b"[ \t\r\n]",
    b"{ \t\r\n}",
    b'[ 1 , [ ] , { } , { "x" : [ 2 ] } ]',
    b'{"x" :\n1\t,"x"\r: 2 }',
    b'"[{"',
    b'["]"]',
]
BROKEN_VALUES = [
    b"",
    b"nul",
    b"nulll",
    b"True",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"[NaN]",
    b"01",
    b"-01",
    b"1.",
    b".5",
    b"1.e3",
    b"1e",
    b"1e+",
    b"-",
    b"--1",
    b"+1",
    b"0x1",
    b"1_0",
    b"\xd9\xa1",
    b'"',
    b'"a',
    b"'a'",
    b'"a\tb"',
    b'"\x00"',
    b'"\x1f"',
    rb'"\x41"',
    rb'"\a"',
    rb'"\v"',
    b'"\\\n"',
    rb'"\U0041"',
    rb'"\u12"',
    rb'"\u12g4"',
    rb'"\u 123"',
    b'"\\',
    b"[",
    b"]",
    b"[1",
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b"[1,,2]",
    b"[1}",
    b"[[]",
    b"[]]",
    b"[}",
    b"{",
    b"{]",
    b'{"x"}',
    b'{"x":}',
    b'{"x":1,}',
    b'{,"x":1}',
    b'{"x":1 "y":2}',
    b'{"x"::1}',
    b'{"x":1]',
    b"{1:2}",
    b"{'x':1}",
    b'{"\x01":1}',
    rb'{"\q":1}',
    b"{null:1}",
    b"1 1",
    b"{}{}",
    b"\x0c1",
    b"\xc2\xa01",
    b"\xef\xbb\xbf1",
    b"//\n1",
    b"1/**/",
    b"1\x00",
]


def shown(text: bytes) -> str:
    return repr(text[:30])


def refuse(constant: str) -> None:
    raise ValueError(constant)


def reference(text: bytes) -> Any:
    """Return what Python's `json` reads, numbers as their text; raise ValueError if it is invalid."""
    return json.loads(text.decode(), parse_constant=refuse, parse_int=str, parse_float=str)


def read_both_ways(text: bytes) -> tuple[dict[str, bytes] | None, dict[str, bytes] | None]:
    """Return what `read` and `scan` give, None where they refuse the text."""
    outcomes: list[dict[str, bytes] | None] = []
    for way in (READER.read, READER.scan):
        try:
            pair = way(text)
            outcomes.append({"a": bytes(pair.first), "b": bytes(pair.second)})
        except InvalidJSON:
            outcomes.append(None)
    return outcomes[0], outcomes[1]


@pytest.mark.parametrize("value", VALID_VALUES, ids=shown)
def test_a_valid_value_keeps_its_bytes_wherever_it_stands(value: bytes) -> None:
    text = b' {"x":\t%b , "a"\n:\r%b , "b": 1 }\n' % (value, value)
    assert read_both_ways(text) == ({"a": value, "b": b"1"},) * 2
    assert list(members(text)) == [("x", value), ("a", value), ("b", b"1")]
    array = b" [ %b , %b ] " % (value, value)
    assert list(read_array(array)) == list(elements(array)) == [value, value]


@pytest.mark.parametrize("value", BROKEN_VALUES, ids=shown)
def test_a_broken_value_is_refused_wherever_it_stands(value: bytes) -> None:
    for name in (b"a", b"x"):
        assert read_both_ways(b'{"%b":%b,"b":1}' % (name, value)) == (None, None)
        assert read_both_ways(b'{"%b":[[{"y":%b}]],"b":1}' % (name, value)) == (None, None)
    for way in (read_array, elements):
        with pytest.raises(InvalidJSON):
            list(way(b"[0,%b]" % value))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"null",
        b"1",
        b'"a"',
        b"[]",
        b"[{}]",
        b"{",
        b"}",
        b'{"a":1]',
        b"{} {}",
        b"{},",
        b"{}\x00",
        b"\xef\xbb\xbf{}",
    ],
)
def test_only_one_object_is_read_as_an_object(text: bytes) -> None:
    assert read_both_ways(text) == (None, None)


@pytest.mark.parametrize(
    "text", [b"", b" ", b"null", b"{}", b"[", b"]", b"[1}", b"[][]", b"[],", b"[]\x00", b"\xef\xbb\xbf[]"]
)
def test_only_one_array_is_read_as_an_array(text: bytes) -> None:
    for way in (read_array, elements):
        with pytest.raises(InvalidJSON):
            list(way(text))


def test_empty_objects_and_arrays_have_no_contents() -> None:
    for blanks in (b"", b" \t\r\n"):
        assert list(members(b"%b{%b}%b" % (blanks, blanks, blanks))) == []
        assert list(elements(b"%b[%b]%b" % (blanks, blanks, blanks))) == []


@pytest.mark.parametrize("extra", [b"", rb',"x":"\ud800"'])
def test_of_a_name_given_twice_the_last_counts_also_if_it_is_escaped(extra: bytes) -> None:
    assert read_both_ways(rb'{"a":1,"b":2,"\u0061":3%b}' % extra) == ({"a": b"3", "b": b"2"},) * 2
    assert read_both_ways(b'{"a":1,"a":null%b}' % extra) == ({"a": b"null", "b": b""},) * 2


@pytest.mark.parametrize("extra", [b"", rb',"x":"\ud800"'])
def test_names_are_case_sensitive(extra: bytes) -> None:
    assert read_both_ways(b'{"A":1,"B":2," a":3%b}' % extra) == ({"a": b"", "b": b""},) * 2


@pytest.mark.parametrize("levels", [100, 900, 1_100, 100_000])
def test_nesting_is_no_obstacle_however_deep(levels: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"x":', b"}")):
        value = opening * levels + b"1" + closing * levels
        assert read_both_ways(b'{"a":%b}' % value) == ({"a": value, "b": b""},) * 2
        assert list(read_array(b"[%b]" % value)) == [value]
        assert read_both_ways(b'{"a":%b' % value) == (None, None)


def test_a_long_array_is_read_like_a_short_one() -> None:
    text = b"[" + b"0," * 1_000_000 + rb'"\ud800"]'
    assert sum(1 for _ in read_array(text)) == 1_000_001


@pytest.mark.long
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"' + rb"\"" * 1_000_000,
        b'{"a":"' + rb"\ud800" * 300_000,
        b'{"a":' + b" " * 2_000_000,
        b'{"a":' + b"1" * 2_000_000,
        b'{"a":' + b"[" * 2_000_000,
        b'{"a":' + b'{"x":' * 400_000,
        b'{"a":[' + b'"",' * 600_000,
    ],
    ids=shown,
)
def test_the_time_taken_grows_with_the_length_not_with_its_square(text: bytes) -> None:
    assert read_both_ways(text) == (None, None)
    assert is_nested_deeper(b"[" * 500 + text, 400)


@pytest.mark.parametrize("levels", [1, 2, 500, 100_000])
def test_the_levels_of_nesting_are_counted_exactly(levels: int) -> None:
    for text in (b"[" * levels + b"]" * levels, b'{"x":' * levels + b"1" + b"}" * levels):
        assert not is_nested_deeper(text, levels)
        assert is_nested_deeper(text, levels - 1)


def test_brackets_that_are_closed_before_do_not_nest() -> None:
    assert not is_nested_deeper(b"[" + b"[{}]," * 1_000 + b"1]", 3)
    assert is_nested_deeper(b"[" + b"[{}]," * 1_000 + b"1]", 2)


def test_brackets_inside_strings_do_not_nest() -> None:
    assert not is_nested_deeper(rb'["[[[[{{{{", "\"[[[[", "\\", {"[[\\\"[[": "{\\\\"}]', 2)
    assert is_nested_deeper(rb'["[[[[{{{{", "\"[[[[", "\\", {"[[\\\"[[": "{\\\\"}]', 1)
    assert is_nested_deeper(rb'["\\",[[[["]"]]]]]', 4)


@pytest.mark.parametrize(
    ("text", "string"),
    [
        (b'""', ""),
        (b'"\xc3\xa9"', "é"),
        (rb'"\u00E9\n\"\/"', 'é\n"/'),
        (rb'"\ud83d\ude00"', "\N{GRINNING FACE}"),
        (rb'"\ud83d\ude00\ud83d"', "\N{GRINNING FACE}\ud83d"),
        (rb'"\ude00\ud83d"', "\ude00\ud83d"),
        (rb'"\u0000"', "\0"),
    ],
)
def test_a_string_is_read_with_its_escapes_and_lone_surrogates(text: bytes, string: str) -> None:
    assert read_string(text) == string


blanks = st.sampled_from(["", "", "", " ", "\n", "\t \r"])
numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,5})?", fullmatch=True)
characters = (
    st.characters(exclude_categories=["Cs"], min_codepoint=0x20, exclude_characters='"\\')
    | st.sampled_from([r"\"", r"\\", r"\/", r"\b", r"\n", r"\u0000", r"\u00e9", r"\ud83d\ude00", r"\ud800", r"\uDFFF"])
    | st.sampled_from("[]{},:ab")
)
strings = st.lists(characters, max_size=6).map(lambda parts: '"' + "".join(parts) + '"')
names = st.sampled_from(['"a"', '"b"', r'"\u0061"', '"A"']) | strings
scalars = st.sampled_from(["null", "true", "false", "0", "-0", "[]", "{}"]) | numbers | strings


def joined(items: list[str], opening: str, closing: str, blank: str) -> str:
    return f"{opening}{blank}" + f"{blank},{blank}".join(items) + f"{blank}{closing}"


def containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    entries = st.tuples(names, blanks, values).map(lambda parts: f"{parts[0]}{parts[1]}:{parts[1]}{parts[2]}")
    arrays = st.builds(joined, st.lists(values, max_size=4), st.just("["), st.just("]"), blanks)
    objects = st.builds(joined, st.lists(entries, max_size=4), st.just("{"), st.just("}"), blanks)
    return arrays | objects


documents = st.recursive(scalars, containers, max_leaves=12)
objects_with_them = st.builds(
    joined, st.lists(st.builds("{}:{}".format, names, documents), max_size=4), st.just("{"), st.just("}"), blanks
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return an object with a few pieces cut out, put in, or put over others, as long as it is UTF-8."""
    text = draw(objects_with_them)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 3))
        piece = draw(st.sampled_from(["", *'{}[],:"\\0-.eE', "\\u", "NaN", "\x01", "\x0c", "\ufeff", "1", "null", " "]))
        text = text[:start] + piece + text[end:]
    return text.encode()


@given(documents)
def test_any_valid_document_comes_out_byte_for_byte(document: str) -> None:
    value = document.encode()
    assert read_both_ways(b'{"x":%b,"a":%b,"b":%b}' % (value, value, value)) == ({"a": value, "b": value},) * 2
    assert list(read_array(b"[%b,%b]" % (value, value))) == [value, value]


@settings(max_examples=250)
@given(mutated() | objects_with_them.map(str.encode))
@example(b'{"a":"\\ud800","a":1}')
@example(b'{"\\ud800":1,"a":2,"b":[]}')
def test_both_ways_agree_with_the_reference_on_any_text(text: bytes) -> None:
    fast, slow = read_both_ways(text)
    assert fast == slow
    try:
        document = reference(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        assert slow is None
        return
    assert slow is not None
    assert {name: reference(value) for name, value in slow.items() if value} == {
        name: document[name] for name in ("a", "b") if name in document
    }
    assert {name: reference(value) for name, value in members(text)} == document


@given(st.text('[{]}"\\ ,x', max_size=40))
def test_any_text_is_nested_as_deep_as_a_reader_of_single_characters_says(text: str) -> None:
    level = deepest = 0
    in_string = is_escaped = False
    for character in text:
        if is_escaped:
            is_escaped = False
        elif in_string:
            is_escaped = character == "\\"
            in_string = character != '"'
        elif character == '"':
            in_string = True
        else:
            level += {"[": 1, "{": 1, "]": -1, "}": -1}.get(character, 0)
            deepest = max(deepest, level)
    for levels in range(5):
        assert is_nested_deeper(text.encode(), levels) == (deepest > levels)
