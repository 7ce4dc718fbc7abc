"""SPDX license of code, with the evidence: a file's header, or the text of a LICENSE file.

Only unambiguous statements are recognized: a text that holds more than a known license, such as a
restriction at its end, is unknown. Any such text gives "" and leaves the decision to the filter's
rule for unknown licenses.
"""

import re
from collections.abc import Iterable, Mapping

from tasks.core.rows.spdx import canonical

HEADER = re.compile(
    r"SPDX-License-Identifier:\s*([A-Za-z0-9.+()/ -]+?)\s*(?:\*/|-->|$)", re.MULTILINE
)
HEADER_CHARACTERS = 2000

# values of the free-text metadata field `License`, in lower case
FIELD_VALUES = {
    spdx.lower(): spdx
    for spdx in (
        *("MIT", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "ISC"),
        *("PSF-2.0", "MPL-2.0", "Unlicense", "Zlib", "CC0-1.0"),
    )
} | {
    "mit license": "MIT",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd 3-clause": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause",
}

_BSD = "redistribution and use in source and binary forms"
_ISC = "permission to use, copy, modify, and/or distribute this software for any"
_MIT = "permission is hereby granted, free of charge"

# phrases of license texts, all of which must occur; the first match wins, so a license whose text
# contains the phrases of another one precedes it
TEXTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AGPL-3.0-only", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0-only", ("gnu lesser general public license", "version 3")),
    ("LGPL-2.1-only", ("gnu lesser general public license", "version 2.1")),
    ("GPL-3.0-only", ("gnu general public license", "version 3")),
    ("GPL-2.0-only", ("gnu general public license", "version 2")),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("BSL-1.0", ("boost software license", "version 1.0")),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    *(
        (f"CC-BY{short}-4.0", (f"attribution{long} 4.0 international",))
        for short, long in (
            ("-NC-SA", "-noncommercial-sharealike"),
            ("-NC-ND", "-noncommercial-noderivatives"),
            ("-NC", "-noncommercial"),
            ("-SA", "-sharealike"),
            ("-ND", "-noderivatives"),
            ("", ""),
        )
    ),
    ("BUSL-1.1", ("business source license 1.1",)),
    ("Elastic-2.0", ("elastic license 2.0",)),
    ("SSPL-1.0", ("server side public license", "version 1")),
    ("EPL-2.0", ("eclipse public license", "2.0")),
    ("EUPL-1.2", ("european union public licence", "1.2")),
    ("WTFPL", ("do what the fuck you want to public license",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("MIT", (_MIT, "the above copyright notice and this permission notice")),
    ("MIT-0", (_MIT, "without limitation the rights")),
    ("BSD-3-Clause", (_BSD, "endorse or promote products")),
    ("BSD-2-Clause", (_BSD, "provided that the following conditions")),
    ("ISC", (_ISC, "above copyright notice")),
    ("0BSD", (_ISC,)),
    (
        "Zlib",
        (
            "'as-is', without any express or implied",
            "altered source versions must be plainly marked",
        ),
    ),
)
OPENING_CHARACTERS = 300  # of a GNU license: its name; further down it names the other ones
# licenses of one page: where the text begins and ends, and its length in between, without copyright
BODIES = {
    "MIT": (_MIT, "dealings in the software", 960),
    "BSL-1.0": (_MIT, "dealings in the software", 1_300),
    "MIT-0": (_MIT, "dealings in the software", 830),
    "BSD-3-Clause": (_BSD, "possibility of such damage", 1_350),
    "BSD-2-Clause": (_BSD, "possibility of such damage", 1_180),
    "ISC": ("permission to use, copy, modify", "performance of this software", 690),
    "0BSD": ("permission to use, copy, modify", "performance of this software", 600),
}
# words of these texts in the variants that are in use: any other one changes the license
BODY_WORDS = """
a above accompanying action advised all an and any appear are arising as associated author
authors b be binary business but by c caused charge claim code conditions connection
consequential contract contributors copies copy copyright covered damage damages data deal
dealings derivative derived direct disclaimed disclaimer disclaims display distribute
distribution do documentation entire even event execute exemplary express fee files fitness
following for form forms free from furnished generated goods grant granted hereby holder holders
however if implied in incidental included including indirect interruption is its kind language
liability liable license limitation limited list loss machineexecutable materials may
merchantability merge met modification modify must name negligence neither no noninfringement
nor not notice notices object obtaining of on or organization other otherwise out part
particular parties performance permission permit permitted person persons portions possibility
prepare prior processor procurement profits provided publish purpose redistribution
redistributions regard reproduce restriction resulting retain rights sell services shall so
software solely source special specific statement strict subject sublicence sublicense
substantial substitute such that the theory third thirdparties this those title to tort tortious
transmit unless use warranties warranty way whatsoever whether which whole whom with without
works written
"""
# in them, names of holders may be anything
HOLDERS = re.compile(
    r"in no event shall .{0,200}? be liable|neither the names? .{0,200}? may be used"
    r"|provided by .{0,120}? [\"'“”`´]*as is|endorse or promote products"
    r"|the names? .{0,100}? (?:may|must) not be used"
)
MAX_EXCESS = 1.15  # of the length: names of holders in the disclaimer
NAME_CHARACTERS = 60  # of a file that only names its license
MAX_REST = 40  # characters after the end
# of Apache-2.0, whose appendix repeats the name
APPENDIX_END = "limitations under the license."
LONG_END = "end of terms and conditions"
RESTRICTIONS = (
    *("may not be used", "commercial", "must not", "gpl", "general public license"),
    *("apache license", "mozilla public", "creative commons", "commons clause"),
    *("files below", "following files", "third party", "third-party", "except"),
)
CHOICE = re.compile(r"(?i)\beither\b|\bdual[- ]licen|\bat your (?:choice|option)\b")
CHOICE_CHARACTERS = 1_500  # of a file that only names the licenses
TEXTS_FOLDER = "LICENSES"
# MIT-LICENSE is usual in Ruby
FILE_NAME = re.compile(r"(?i:LICEN[CS]E|COPYING|UNLICENSE)|[A-Z0-9.]+[-_]LICEN[CS]E\b")


def is_license_file(path: str) -> bool:
    """Whether a file is named like a license text, or in a folder of them as REUSE has it."""
    start = path.rfind("/") + 1
    folder = path[: max(0, start - 1)]
    if folder.endswith(TEXTS_FOLDER) and folder.rpartition("/")[2] == TEXTS_FOLDER:
        return path.endswith(".txt")
    return bool(FILE_NAME.match(path, start))


def license_of_header(text: str) -> tuple[str, str]:
    """(license, evidence) of a source file's SPDX header; ("", "") where there is none."""
    match = HEADER.search(text, 0, HEADER_CHARACTERS)
    if not match:
        # an expression that reaches beyond the part that is searched
        is_cut = "SPDX-License-Identifier:" in text[:HEADER_CHARACTERS]
        return ("", "SPDX header that is no SPDX expression") if is_cut else ("", "")
    if expression := canonical(match[1]):
        return expression, "SPDX header of the file"
    return "", f"SPDX header {match[1][:60]}, which is no SPDX expression"


def license_of_value(value: object) -> str:
    """SPDX expression of a value in a column of licenses; "" if there is none.

    A list, in a list or as text (`["MIT", "ISC"]`, `MIT, ISC`), names licenses that all apply. A
    value that is no license is returned as it stands, so that the filter names it.
    """
    if isinstance(value, list | tuple):
        names = [license_of_value(item) for item in value]
        return conjunction(f"({n})" if " OR " in n else n for n in names if n)
    text = "" if value is None else " ".join(str(value).replace("\0", "").split())
    text = text.encode("utf-8", "replace").decode()
    if known := canonical(text) or FIELD_VALUES.get(text.lower().removeprefix("the "), ""):
        return known
    parts = [part.strip(" '\"") for part in re.split("[,;|]", text.strip("[]()"))]
    if len(parts) > 1 or text != parts[0]:
        return license_of_value([part for part in parts if part])
    return text


def license_of_text(text: str) -> str:
    """SPDX id of a license text, "" if it is not one of the common ones, or holds more."""
    plain = " ".join(text.lower().split())
    if len(plain) <= NAME_CHARACTERS and (stated := canonical(plain) or FIELD_VALUES.get(plain)):
        return stated
    spdx = _named_license(plain)
    return spdx if spdx and not _holds_more(plain, spdx) else ""


def _holds_more(plain: str, spdx: str) -> bool:
    """Whether a text says more than the license that it was recognized as."""
    if spdx not in BODIES:
        # long texts vary too much to be compared; another license in them, or after them, is found
        has_other = any(begins in plain for begins, _, _ in BODIES.values())
        rest = plain[plain.rfind(LONG_END) :] if LONG_END in plain else ""
        rest = rest[rest.rfind(APPENDIX_END) :] if APPENDIX_END in rest else rest
        after = any(word in rest for word in RESTRICTIONS if APPENDIX_END in rest)
        return (has_other and spdx != "PSF-2.0") or after or _named_license(rest) not in ("", spdx)
    begins, ends, characters = BODIES[spdx]
    start, end = plain.find(begins), plain.rfind(ends)
    if start < 0 or end < start:
        return False  # a short form of the license; its phrases have been found
    head, rest = plain[:start], plain[end + len(ends) :].strip(" .*/#-=\"'")
    body = HOLDERS.sub(" ", plain[start : end + len(ends)])
    is_other = not set(BODY_WORDS.split()).issuperset(re.findall(r"[a-z]+", body.replace("-", "")))
    is_longer = end + len(ends) - start > MAX_EXCESS * characters
    has_more = is_other or is_longer or len(rest) > MAX_REST
    return has_more or any(word in f"{head} {rest}" for word in RESTRICTIONS)


def _named_license(plain: str) -> str:
    """SPDX id of the first license whose phrases a text holds."""
    opening = plain[:OPENING_CHARACTERS]
    for spdx, phrases in TEXTS:
        is_gnu = phrases[0].startswith("gnu ")
        if all(phrase in (opening if is_gnu else plain) for phrase in phrases):
            return spdx
    return ""


def license_of_texts(texts: Mapping[str, str]) -> tuple[str, str]:
    """(license, evidence) of one or several LICENSE files that all apply; unknown if one of them
    is.

    Args:
        texts: {file name: text}
    """
    found = {name: license_of_text(text) for name, text in texts.items()}
    names = ", ".join(found)
    if choice := _choice(texts, found):
        return choice
    if all(found.values()):
        return conjunction(found.values()), f"text of {names}"
    unknown = {name: _named_license(" ".join(texts[name].lower().split())) for name in found}
    evidence = [
        f"{name}: more than the text of {unknown[name]}"
        if unknown[name]
        else f"{name}: no known license text"
        for name, spdx in found.items()
        if not spdx
    ]
    return "", "; ".join(evidence)


def _choice(texts: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, str] | None:
    """(license, evidence) of files of which one says that either of the others applies; None
    without such a file."""
    for name, text in texts.items():
        plain = " ".join(text.split())
        if found[name] or len(plain) > CHOICE_CHARACTERS or not CHOICE.search(plain):
            continue
        others = [other for other in found if other != name and _is_named(other, found, plain)]
        if len(others) > 1 and all(found[other] for other in others):
            licenses = dict.fromkeys(found[other] for other in others)
            rest = [n for n in found if n != name and n not in others]
            if all(found[n] for n in rest):
                choice = " OR ".join(licenses)
                choice = f"({choice})" if rest and len(licenses) > 1 else choice
                return (
                    conjunction([choice, *(found[n] for n in rest)]),
                    f"{name}: either of {', '.join(others)}",
                )
    return None


def _is_named(file: str, found: Mapping[str, str], text: str) -> bool:
    """Whether a text names a LICENSE file, or the license in it as SPDX does."""
    by_id = found[file] and re.search(rf"(?i)\b{re.escape(found[file])}\b", text)
    return file.rpartition("/")[2] in text or bool(by_id)


def conjunction(licenses: Iterable[str]) -> str:
    """The expression of licenses that all apply."""
    return " AND ".join(dict.fromkeys(licenses))
