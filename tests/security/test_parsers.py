"""What reads texts of strangers by itself takes whatever comes: it answers, or refuses with an error of ours, and soon.

Here with random texts; `python -m tests.security.fuzz` has the same tests led by what they reach.
"""

import contextlib
import os
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from app.api import cookie
from app.api.dashboard import wants_page
from app.api.origin import Origins
from app.api.query import Moment, decoded_cursor, encoded_cursor, words_of
from app.core.errors import AppError, OutboundRefused
from app.core.file import content_type_of, label_of, served_as
from app.core.keys import token_parts
from app.core.outbound import allowance, check_headers
from app.core.secrets import Redactor
from app.core.settings import Settings
from app.services.destinations import Rules

TEXTS = st.text(max_size=200) | st.text(
    alphabet=":/@.[]%#?;,=\"'\\ -*_0123456789abcxyz\x00\r\n\u0130\u2460", max_size=80
)
BYTES = st.binary(max_size=200) | TEXTS.map(lambda text: text.encode("utf-8", "replace"))
URLS = st.builds("{}://{}{}".format, st.sampled_from(("http", "https", "ftp")), TEXTS, TEXTS) | TEXTS
MOMENT = TypeAdapter[datetime](Moment)
RULES = Rules(Settings())
tried = settings(max_examples=20_000 if os.environ.get("CHAOS") == "long" else 300, deadline=None, database=None)


def scope(**headers: bytes) -> dict[str, Any]:
    lines = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return {"type": "http", "scheme": "http", "method": "POST", "server": ("127.0.0.1", 8000), "headers": lines}


@tried
@given(TEXTS)
@example(encoded_cursor(7))
@example("YmVmb3JlOjE\n")
def test_a_cursor_is_a_number_or_refused(text: str) -> None:
    with contextlib.suppress(AppError):
        assert 0 <= decoded_cursor(text) < 10**18


@tried
@given(TEXTS, TEXTS)
def test_a_filter_is_understood_or_refused(words: str, moment: str) -> None:
    with contextlib.suppress(AppError):
        assert words_of("include", words, ("payload", "result")) <= {"payload", "result"}
    with contextlib.suppress(ValidationError):
        assert MOMENT.validate_python(moment).tzinfo is not None


@tried
@given(URLS)
@example("http://[::ffff:127.0.0.1]/")
@example("http://0x7f.1/")
@example("http://example.com\\@127.0.0.1/")
def test_a_url_leads_to_a_public_place_and_is_read_alike_twice(url: str) -> None:
    try:
        found = RULES.check(url)
    except OutboundRefused:
        return
    assert found.url.isascii()
    assert not {"\r", "\n", "\x00", " "} & set(found.url)
    assert RULES.check(found.url) == found
    with contextlib.suppress(ValueError):
        assert ip_address(found.host).is_global


@tried
@given(BYTES, BYTES, BYTES)
def test_nothing_but_our_own_origin_is_taken_for_it(host: bytes, origin: bytes, site: bytes) -> None:
    origins = Origins(("https://tasks.example",))
    said = scope(host=host, origin=origin, sec_fetch_site=site, x_same_origin=b"1")
    if site not in (b"same-origin", b"none"):
        assert origins.refused(said)
        assert origins.unproven(said)
    without = scope(host=b"localhost:8000", origin=origin, x_same_origin=b"1")
    ours = {b"http://localhost:8000", b"https://localhost:8000", b"https://tasks.example"}
    assert (origins.refused(without) is None) == (origin in ours)
    assert (origins.unproven(without) is None) == (origin in ours)


@tried
@given(BYTES)
def test_a_cookie_is_read_or_not(value: bytes) -> None:
    for secure in (True, False):
        token = cookie.shown(scope(cookie=value), secure)
        assert token is None or token.encode("latin-1") in value
        assert token_parts(token or "") is None


@tried
@given(BYTES)
def test_what_is_accepted_is_yes_or_no(value: bytes) -> None:
    assert wants_page(Request(scope(accept=value))) in (True, False)


@tried
@given(TEXTS)
def test_a_label_is_one_line_without_a_path(name: str) -> None:
    label = label_of(name)
    assert label
    assert len(label.encode()) <= 255
    assert not {"/", "\\", "\x00", "\r", "\n"} & set(label)


@tried
@given(TEXTS)
def test_a_file_is_served_as_nothing_that_runs(declared: str) -> None:
    served = served_as(content_type_of(declared))
    assert not any(word in served for word in ("html", "svg", "xml", "javascript", "ecmascript"))


@tried
@given(TEXTS)
def test_an_allowance_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        allowance(text)


@tried
@given(TEXTS, TEXTS)
def test_headers_for_others_have_no_line_of_their_own(name: str, value: str) -> None:
    try:
        check_headers([(name, value)])
    except (AppError, ValueError):
        return
    assert not {"\r", "\n", "\x00"} & set(name + value)


@tried
@given(TEXTS, st.text(alphabet="abcdef0123456789+/=._-", min_size=8, max_size=40), TEXTS)
def test_a_secret_is_cut_out_wherever_it_stands(before: str, secret: str, after: str) -> None:
    assert secret not in Redactor([secret])(f"{before}{secret}{after}")
