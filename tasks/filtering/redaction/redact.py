"""Redaction: a text -> the text with placeholders for secrets and personal data, and their spans.

A placeholder is a plain word such as REDACTED_EMAIL: it resembles no special token of a tokenizer,
and is valid inside a string, in a comment and as a name, so Python that parsed still parses.
"""

import ipaddress
import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tasks.filtering.redaction.secret_patterns import FORMATS, PRIVATE_KEY_BLOCK

EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+/@-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@"
    r"(?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,5}(?P<top>[a-z]{2,18}))(?![A-Za-z0-9_(\[-]|\.[A-Za-z])"
)
GENERIC_DOMAIN = re.compile(
    "com|org|net|edu|gov|mil|int|info|biz|name|dev|app|xyz|online|site|tech|cloud|email|blog|"
    "museum|science|academy|agency|company|digital|systems|software|page"
)
NO_COUNTRIES = frozenset({"mt", "re", "py"})  # also attributes and suffixes: a@b.mt, x@y.py
PLACEHOLDER_DOMAIN = re.compile(
    r"(?:^|\.)(?:test|invalid|localhost|local)$|"
    r"^(?:domain|foo|bar|host|server|company|email|mail|somewhere|nowhere|yourdomain|mydomain)\.[a-z]+$"
)
REMOTE_PATH = re.compile(r":(?!//)[\w~.{}$<>-]*/|:[\w.-]+\.git\b")
REMOTE_USERS = ("git@", "hg@")  # users of code hosts, not people
IPV4 = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?!\w|\.\w|[-+][A-Za-z])")
IPV6 = re.compile(
    r"(?:(?<![\w:.])|(?<=\\[nrt]))(?:[0-9A-Fa-f]{0,4}:){4,7}[0-9A-Fa-f]{0,4}(?![\w:])"
)
COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:")  # part of each IPV6
QUICK = (
    re.compile(r"@(?<=[A-Za-z0-9._%+-]@)[A-Za-z0-9-]"),
    COLONS,
    re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"),
)
LITERALS = sorted({literal for form in (*FORMATS, PRIVATE_KEY_BLOCK) for literal in form.literals})
JOINED = re.compile(r"(?<!\\[nrt])(?<=[\w.])")  # no address begins directly after these
VERSION_BEFORE = re.compile(
    r"(?i)(?:(?:version|release|build|rev|ver|\bv|\boid|section|sec\.|§)s?[\s\"':=(]{0,4}"
    r"|(?:[<>~!=]=)\s{0,2}|(?:upgrade|update|bump)[ds]?(?: \w+)? (?:to|from) |[a-z][/_-])$"
)
PUBLIC_RESOLVERS = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"})
ESCAPE = re.compile(r"[abfnrtv0]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}")


@dataclass(frozen=True)
class Redaction:
    """One span, in characters of the original text."""

    kind: str
    start: int
    end: int


def suspects(texts: Sequence[str]) -> set[int]:
    """Indexes of the texts that may hold something to redact; the others certainly do not.

    The literals of the formats are searched for in all texts joined, which is far quicker than a
    search per text.
    """
    joined = "\0".join(texts)
    starts = list(accumulate((len(text) + 1 for text in texts), initial=0))
    places = [match.start() for pattern in QUICK for match in pattern.finditer(joined)]
    for literal in LITERALS:
        place = joined.find(literal)
        while place >= 0:
            places.append(place)
            # continue in the next text: one match suffices
            place = joined.find(literal, starts[bisect_right(starts, place)])
    return {bisect_right(starts, place) - 1 for place in places}


def redact(text: str, kinds: Collection[str]) -> tuple[str, list[Redaction]]:
    """Replace secrets ("secret"), e-mail addresses ("email") and public IP addresses ("ip") by
    placeholders; a private key block is always replaced.

    Returns:
        The text, and the spans in order.
    """
    found = sorted(
        _find(text, kinds), key=lambda span: (span.start, span.kind == "email", -span.end)
    )
    parts, spans, end = [], [], 0
    for span in found:
        if span.start < end:
            continue  # overlaps the previous span
        parts += [text[end : span.start], placeholder(span.kind)]
        spans.append(span)
        end = span.end
    return ("".join([*parts, text[end:]]) if spans else text), spans


def redact_json(text: str, kinds: Collection[str]) -> str:
    """JSON with every string in it redacted, but no key; "" stays "".

    Conversations are redacted so, whose texts are also in the columns that `redact` changes.
    """
    if not text:
        return ""

    def redacted(value: Any) -> Any:
        if isinstance(value, str):
            return redact(value, kinds)[0]
        if isinstance(value, list):
            return [redacted(item) for item in value]
        if isinstance(value, dict):
            return {key: redacted(item) for key, item in value.items()}
        return value

    return json.dumps(redacted(json.loads(text)), sort_keys=True, ensure_ascii=False)


def placeholder(kind: str) -> str:
    """The word that replaces a span."""
    return f"REDACTED_{kind.upper()}"


def _find(text: str, kinds: Collection[str]) -> Iterator[Redaction]:
    if PRIVATE_KEY_BLOCK.literals[0] in text:
        for match in PRIVATE_KEY_BLOCK.pattern.finditer(text):
            yield Redaction(PRIVATE_KEY_BLOCK.name, match.start(), match.end())
    if "secret" in kinds:
        for form in FORMATS:
            if any(literal in text for literal in form.literals):
                for match in form.pattern.finditer(text):
                    part = "secret" if "secret" in form.pattern.groupindex else 0
                    yield Redaction(form.name, match.start(part), match.end(part))
    if "email" in kinds and "@" in text:
        for match in EMAIL.finditer(text):
            if not _is_address(match["domain"], match["top"]) or _is_remote(text, match):
                continue
            start = _past_escape(text, match.start())
            if text[start] != "@":
                yield Redaction("email", start, match.end())
    if "ip" in kinds:
        yield from _addresses(text)


def _is_address(domain: str, top: str) -> bool:
    """Whether a domain may be real; matrix products such as `a@b.conj` have no such suffix."""
    if PLACEHOLDER_DOMAIN.search(domain.lower()):
        return False
    return bool(GENERIC_DOMAIN.fullmatch(top)) or (len(top) == 2 and top not in NO_COUNTRIES)


def _is_remote(text: str, match: re.Match[str]) -> bool:
    """Whether an address is the host of a repository or of a file, as in `git@host:path`."""
    return match[0].startswith(REMOTE_USERS) or bool(REMOTE_PATH.match(text, match.end()))


def _past_escape(text: str, start: int) -> int:
    r"""Start of an address whose match includes an escape before it: `\nme@home.org`."""
    slashes = start - len(text[:start].rstrip("\\"))
    escape = ESCAPE.match(text, start) if slashes % 2 else None
    return escape.end() if escape else start


def _addresses(text: str) -> Iterator[Redaction]:
    for match in IPV4.finditer(text):
        start = match.start()
        before = VERSION_BEFORE.search(text, max(0, start - 24), start)
        if _is_public_v4(match[0]) and not before and not JOINED.match(text, start):
            yield Redaction("ip", start, match.end())
    if COLONS.search(text):
        for match in IPV6.finditer(text):
            if any(c.isdigit() for c in match[0]) and _is_public(match[0]):
                yield Redaction("ip", match.start(), match.end())


def _is_public_v4(text: str) -> bool:
    parts = text.split(".")
    # four single digits are a version or an example
    if all(len(part) == 1 for part in parts) or text in PUBLIC_RESOLVERS:
        return False
    return _is_public(text)


def _is_public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast
