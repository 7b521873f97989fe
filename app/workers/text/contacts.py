"""Finds e-mail addresses, URLs, phone numbers and IP addresses by pattern, and checks each by its rules.

Every pattern starts only where such a thing can start, and then looks at a bounded stretch or never gives back what it took:
no text makes it slow.
"""

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from app.workers.text.entity import Entity

# Latin letters only: Chinese or Japanese may touch an address without a space.
_LOCAL = "[A-Za-z0-9\u00c0-\u024f_%+-]"
EMAIL = re.compile(
    rf"(?<!{_LOCAL})(?<!{_LOCAL}\.)(?>{_LOCAL}+(?:\.{_LOCAL}+)*)@"
    r"(?:(?>[^\W_]+(?:-+[^\W_]+)*)\.){1,8}(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,63})(?![\w@])"
)
URL = re.compile(
    '(?i)(?<![\\w.@-])(?:(?:https?|ftp)://|www\\.(?=[^\\W_]))[^\\s<>"\u201c\u201d\u201e\u00ab\u00bb`{}|\\\\^]+'
)
# Longer ones are no addresses that a server would take, and urlsplit is quadratic on some of them.
LONGEST_URL = 2048
TRAILING_MARKS = ".,;:!?'*_\u2019\u2026\u3001\u3002\uff0c\uff01\uff1f"
_LABEL = r"(?>[^\W_]+(?:[-_]+[^\W_]+)*)"
HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
PHONE = re.compile(
    r"(?<![\w+])\+[1-9](?:(?:\(0\)|[ .\-/()\u00a0]){0,2}[0-9]){6,14}(?!\w)"
    r"|(?<![\w+./-])(?<!\d )(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?![\w/-]|[.,]\d)"
)
IPV4 = re.compile(r"(?<![\w.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\w|\.\w)")
IPV6 = re.compile(
    r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{2,39}(?:(?<=:)[0-9]{1,3}(?:\.[0-9]{1,3}){3})?(?![\w:]|\.\w)"
)


def emails(text: str) -> Iterator[Entity]:
    """Addresses with a dotted domain, within the lengths of RFC 5321; none with a quoted local part."""
    for match in EMAIL.finditer(text):
        local, _, domain = match[0].rpartition("@")
        if len(local) <= 64 and all(len(label) <= 63 for label in domain.split(".")):
            yield Entity(match.start(), match.end(), f"{local}@{domain.lower()}")


def urls(text: str) -> Iterator[Entity]:
    """http, https and ftp URLs with a sound host, and names that start with www. (read as http)."""
    for match in URL.finditer(text):
        url = _without_trailing_marks(match[0])
        value = _normal_url(url) if len(url) <= LONGEST_URL else None
        if value is not None:
            yield Entity(match.start(), match.start() + len(url), value)


def _without_trailing_marks(url: str) -> str:
    """`url` without the full stop or the bracket that belongs to the sentence: "(see http://a.org/b_(c))."."""
    end = len(url)
    surplus = {")": url.count(")") - url.count("("), "]": url.count("]") - url.count("[")}
    while end:
        last = url[end - 1]
        if surplus.get(last, 0) > 0:
            surplus[last] -= 1
        elif last not in TRAILING_MARKS:
            break
        end -= 1
    return url[:end]


def _normal_url(url: str) -> str | None:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            host = f"[{_spelled(ipaddress.IPv6Address(host))}]"
        elif HOST.fullmatch(host) is None:
            return None
    except ValueError:  # a port that is no number, or brackets without an IPv6 address between them
        return None
    user = parts.netloc.rpartition("@")[0]
    netloc = (f"{user}@" if user else "") + host + (f":{port}" if port is not None else "")
    return parts._replace(netloc=netloc).geturl()


def phones(text: str) -> Iterator[Entity]:
    """International numbers as E.164, and ten-digit ones in the North American form, whose country stays open (None).

    Other national forms are left out: nothing but context tells them from other numbers.
    """
    for match in PHONE.finditer(text):
        number = re.sub(r"\(0\)|\D", "", match[0])
        yield Entity(match.start(), match.end(), f"+{number}" if match[0].startswith("+") else None)


def ips(text: str) -> Iterator[Entity]:
    """IPv4 and IPv6 addresses in their shortest form, in the order of the text."""
    candidates = sorted([*IPV4.finditer(text), *IPV6.finditer(text)], key=re.Match.start)
    done = 0
    for match in candidates:
        # "a::b" is an address by the letter, and a name in several programming languages.
        if any(map(str.isdigit, match[0])):
            value = _normal_ip(match[0])
            if value is not None and match.start() >= done:
                done = match.end()
                yield Entity(match.start(), done, value)


def _normal_ip(written: str) -> str | None:
    try:
        return _spelled(ipaddress.ip_address(written))
    except ValueError:
        return None


def _spelled(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address in its shortest form, the same on every Python: 3.13 writes mapped ones another way than before."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(address) if mapped is None else f"::ffff:{mapped}"
