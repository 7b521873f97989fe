import contextlib
import gc
import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.errors import MalformedJson
from app.core.strict_json import MOST_PARTS, parse

DEPTH = 8

GOOD: list[bytes] = [
    b"null",
    b"true",
    b"0",
    b"-0",
    b"-0.0",
    b"1e-400",
    b"1e308",
    b"9223372036854775807",
    b"-9223372036854775808",
    b'""',
    b'"\\u0001"',
    b'"\\ud83d\\ude00"',
    b'"\\\\u0000 \\\\ud800"',
    '"\U0010ffff é \u2028"'.encode(),
    b"[]",
    b"{}",
    b' \t\r\n{"a" : [1 , 2.5] }\n',
    b'{"a":1,"A":2,"":3,"a ":4}',
    b'[{"a":1},{"a":2}]',
    b"[[[[[[[[1]]]]]]]]",
    b'[{"a":[{"a":[{"a":[{"a":1}]}]}]}]',
    b'"[[[[[[[[[[[[[[[["',
    b'["[[[[\\"[[[[", "{{{{\\\\", "]]]]"]',
    b"[[1],[1],[1],[1],[1],[1],[1],[1],[1],[1]]",
]

BAD: list[bytes] = [
    b"",
    b" ",
    b"\x00",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b"\xff",
    b'"\xc3\x28"',
    b'"\xed\xa0\x80"',
    b'"\xc0\x80"',
    b"NaN",
    b"-NaN",
    b"Infinity",
    b"-Infinity",
    b'{"a":NaN}',
    b"nan",
    b"1e999",
    b"-1e999",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"1" * 21,
    b"1" * 5000,
    b'{"a":' + b"9" * 100_000 + b"}",
    b"01",
    b"+1",
    b".5",
    b"1.",
    b"1e",
    b"0x10",
    b"1_000",
    "١".encode(),
    b"True",
    b"None",
    b"undefined",
    b"'a'",
    b'"a',
    b'"\\x"',
    b'"\\u12"',
    b'"\\u0000"',
    b'{"\\u0000":1}',
    b'["x",{"y":["\\u0000"]}]',
    b'"\\ud800"',
    b'"\\udfff"',
    b'"\\uDBFF"',
    b'"\\ude00\\ud83d"',
    b'{"\\ud800":1}',
    b'["\\ud83d", "\\ude00"]',
    b'"\t"',
    b'"\n"',
    b'"\x00"',
    b'"\x1f"',
    b"[1,]",
    b"[,]",
    b"{,}",
    b'{"a":1,}',
    b'{"a"}',
    b"{a:1}",
    b"{1:1}",
    b"[1 2]",
    b"{} {}",
    b"{}x",
    b"// no\n{}",
    b"/* no */{}",
    b"]",
    b"[}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":1,"a":2}',
    b'{"a":1,"\\u0061":1}',
    b'[{"x":{"b":null,"b":null}}]',
    b'{"":1,"":1}',
    b"[[[[[[[[[1]]]]]]]]]",
    b'["\\"", [[[[[[[[1]]]]]]]]]',
]


@pytest.mark.parametrize("raw", GOOD, ids=lambda raw: repr(raw)[:40])
def test_sound_json_is_what_it_says(raw: bytes) -> None:
    value = parse(raw, DEPTH)
    assert repr(value) == repr(json.loads(raw))


@pytest.mark.parametrize("raw", BAD, ids=lambda raw: repr(raw)[:40])
def test_what_is_ambiguous_lossy_or_unstorable_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedJson) as caught:
        parse(raw, DEPTH)
    assert 0 < len(str(caught.value)) < 300


def test_a_refusal_says_where_it_went_wrong() -> None:
    for raw, said in (
        (b'{"a":\n 1,,}', "line 2, column 4"),
        (b'"ab\xff"', "byte 3"),
        (b'{"key":1,"key":2}', "'key'"),
        (b"[NaN]", "NaN"),
        (b"[" * 9 + b"]" * 9, "8 levels"),
    ):
        with pytest.raises(MalformedJson, match=said):
            parse(raw, DEPTH)


@pytest.mark.parametrize("most", [2, 3, 32, 200])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}"), (b'["[{", {"}]": [', b"]}]")])
def test_depth_is_exact(most: int, opens: bytes, closes: bytes) -> None:
    levels = closes.count(b"]") + closes.count(b"}")
    times = most // levels
    assert parse(opens * times + b"1" + closes * times, times * levels) is not None
    with pytest.raises(MalformedJson, match="deeper"):
        parse(opens * times + b"1" + closes * times, times * levels - 1)


KEYS = 20_000

LONG: dict[str, bytes] = {
    "an unterminated string of escaped quotes": b"[" * 40 + b'"' + b'\\"' * 15_000,
    "quotes and backslashes": b"[" * 40 + b'"a\\' * 10_000,
    "backslashes": b"[" * 40 + b'"' + b"\\" * 120_000,
    "quotes": b"[" * 40 + b'"' * 120_000,
    "brackets": b"[" * 120_000,
    "brackets that close": b"[]" * 60_000,
    "brackets in a string": b'"' + b"[{" * 60_000 + b'"',
    "a key twice at the end": b"{" + b",".join(b'"%d":0' % n for n in range(KEYS)) + b',"%d":0}' % (KEYS - 1),
    "a digit of great length": b"[-" + b"7" * 120_000 + b"]",
    "a fraction of great length": b"[0." + b"7" * 120_000 + b"]",
    "an exponent of great length": b"[1e" + b"7" * 120_000 + b"]",
    "white space": b" " * 120_000,
    "escapes": b'["' + b"\\u0041" * 20_000 + b'"]',
    "surrogates": b'["' + b"\\ud83d\\ude00" * 10_000 + b'\\ud800"]',
    "many small objects": b"[" + b'{"a":"\\ud83d\\ude00"},' * 6_000 + b"0]",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", LONG)
def test_time_grows_with_the_length_alone(kind: str) -> None:
    """A body of 1 MiB may come from anyone, and while it is parsed nobody else is served. Each took a tenth of a second
    at most, and minutes where time grows with the square of the length."""
    # Collecting garbage takes as long as everything else takes that is in this process, which may be the rest of the suite.
    gc.disable()
    try:
        assert min(_seconds(LONG[kind]) for _ in range(3)) < 1
    finally:
        gc.enable()


def _seconds(raw: bytes) -> float:
    """Processor time that parsing takes."""
    began = time.thread_time()
    with contextlib.suppress(MalformedJson):
        parse(raw, 32)
    return time.thread_time() - began


def _value_of(raw: bytes) -> Any:
    """What the parser of the standard library makes of it, or `Ellipsis`."""
    try:
        return json.loads(raw.decode())
    except (ValueError, RecursionError):
        return ...


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((_depth(one) for one in inner), default=0)


def _check(raw: bytes, depth: int = DEPTH) -> None:
    try:
        value = parse(raw, depth)
    except MalformedJson:
        return
    assert repr(value) == repr(_value_of(raw))
    assert _depth(value) <= depth
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60))
@example(b'"\\ud83d\\ud83d\\ude00"')
def test_bytes_of_any_kind_are_refused_or_read_as_the_standard_library_reads_them(raw: bytes) -> None:
    _check(raw)


PIECES = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b'""', b'"a"', b'"a":', b"\\", b'\\"', b"\\u0000", b"\\ud800"),
    *(b"\\udc00", b"\\u0041", b"0", b"-", b"1.5", b"1e5", b"1e999", b"9" * 19, b"9" * 25, b"null", b"true"),
    *(b"NaN", b"Infinity", b" ", b"\n", b"\t", b"\x00", b"\xff", "é".encode(), "\U0001f600".encode(), b"\xef\xbb\xbf"),
]


@settings(max_examples=800, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map(b"".join))
def test_pieces_of_json_in_any_order_are_refused_or_read_right(raw: bytes) -> None:
    _check(raw)


def _json(most: int) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
    strange = st.text(st.characters(codec=None), max_size=4)
    return st.recursive(
        leaves | strange,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
        max_leaves=most,
    )


def _storable(value: Any) -> bool:
    """Whether every part can be kept: 64 bits, finite, no NUL, no lone surrogate."""
    match value:
        case bool() | None:
            return True
        case int():
            return -(2**63) <= value < 2**63
        case float():
            return math.isfinite(value)
        case str():
            return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        case list():
            return all(map(_storable, value))
        case dict():
            return all(_storable(key) and _storable(inner) for key, inner in value.items())
    raise AssertionError(value)


@settings(max_examples=600, deadline=None)
@given(_json(12), st.integers(1, 6), st.booleans())
def test_json_is_taken_if_and_only_if_it_can_be_kept(value: Any, depth: int, as_ascii: bool) -> None:
    raw = json.dumps(value, ensure_ascii=as_ascii).encode("utf-8", "surrogatepass")
    if _storable(value) and _depth(value) <= depth:
        assert repr(parse(raw, depth)) == repr(value)
    else:
        with pytest.raises(MalformedJson):
            parse(raw, depth)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4), st.integers(0, 9), min_size=1
    )
)
def test_a_key_given_twice_is_always_found(value: dict[str, int]) -> None:
    raw = json.dumps(value)
    parse(raw.encode(), 1)
    again = json.dumps(next(iter(value)))
    with pytest.raises(MalformedJson, match="twice"):
        parse(f"{raw[:-1]}, {again}: 0}}".encode(), 1)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"a":[' + b"[]," * (MOST_PARTS - 3) + b"[]]}", ""),
        (b'{"a":[' + b"[]," * MOST_PARTS + b"[]]}", "lists and objects"),
        (b'{"a":["' + b"[" * (MOST_PARTS + 100) + b'"]}', ""),
        (b"[" + b'{"a":0,"b":0},' * (MOST_PARTS // 2 - 1) + b'{"a":0,"b":0}]', ""),
        (b"[" + b'{"a":0,"b":0},' * (MOST_PARTS // 2) + b'{"a":0,"b":0}]', "names"),
    ],
)
def test_a_body_has_no_more_parts_than_one_can_be_asked_to_look_at(body: bytes, says: str) -> None:
    if says:
        with pytest.raises(MalformedJson, match=f"more than 500,000 {says}"):
            parse(body, 4)
    else:
        parse(body, 4)
