"""SPDX licence of code, with the evidence: package metadata, a file's header, a LICENSE file's
text.

Only what is plain is recognised; a doubtful text gives "" and leaves the decision to the filter's
rule for unknown licences.
"""

import re
from collections.abc import Sequence
from email.parser import HeaderParser

HEADER = re.compile(
    r"SPDX-License-Identifier:\s*([A-Za-z0-9.+() -]+?)\s*(?:\*/|-->|$)", re.MULTILINE
)
HEADER_CHARACTERS = 2000
IDENTIFIER = re.compile(r"[A-Za-z0-9.+-]+")

# classifiers that name one licence; "BSD License" does not
CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.1-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
}

# what people write into the free field `License`
PLAIN_NAMES = {
    "mit": "MIT",
    "mit license": "MIT",
    "apache 2.0": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause",
    "isc": "ISC",
    "psf-2.0": "PSF-2.0",
    "mpl-2.0": "MPL-2.0",
    "unlicense": "Unlicense",
    "zlib": "Zlib",
    "cc0-1.0": "CC0-1.0",
}

# phrases of licence texts, all of which must be there; the first that fits wins
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
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    (
        "MIT",
        (
            "permission is hereby granted, free of charge",
            "the above copyright notice and this permission notice",
        ),
    ),
    ("MIT-0", ("permission is hereby granted, free of charge", "without limitation the rights")),
    (
        "BSD-3-Clause",
        ("redistribution and use in source and binary forms", "endorse or promote products"),
    ),
    (
        "BSD-2-Clause",
        (
            "redistribution and use in source and binary forms",
            "provided that the following conditions",
        ),
    ),
    (
        "ISC",
        (
            "permission to use, copy, modify, and/or distribute this software for any",
            "above copyright notice",
        ),
    ),
    ("0BSD", ("permission to use, copy, modify, and/or distribute this software for any",)),
    (
        "Zlib",
        (
            "'as-is', without any express or implied",
            "altered source versions must be plainly marked",
        ),
    ),
)


def from_header(text: str) -> tuple[str, str]:
    """(licence, evidence) of a source file's SPDX header; ("", "") where there is none."""
    match = HEADER.search(text, 0, HEADER_CHARACTERS)
    return (match[1].strip(), "SPDX header of the file") if match else ("", "")


def from_text(text: str) -> str:
    """SPDX id of a licence text, "" if it is not one of the common ones or names several."""
    plain = " ".join(text.lower().split())
    opening = plain[:300]
    for spdx, phrases in TEXTS:
        is_gnu = phrases[0].startswith("gnu ")
        if all(phrase in (opening if is_gnu else plain) for phrase in phrases):
            return spdx
    return ""


def from_metadata(metadata: str, licence_texts: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """(licence, evidence) of a distribution, in the order of plainness.

    Args:
        metadata: Text of METADATA.
        licence_texts: (file name, text) of its LICENSE files.

    Returns:
        SPDX expression and where it was read; ("", why not) if it can't be told.
    """
    headers = HeaderParser().parsestr(metadata)
    if expression := headers.get("License-Expression"):
        return expression.strip(), "METADATA License-Expression"
    classifiers = [
        c.rpartition(" :: ")[2]
        for c in headers.get_all("Classifier", [])
        if c.startswith("License :: ")
    ]
    named = [CLASSIFIERS[c] for c in classifiers if c in CLASSIFIERS]
    if classifiers and len(named) == len(classifiers):
        return " AND ".join(dict.fromkeys(named)), f"METADATA Classifier {', '.join(classifiers)}"
    field = " ".join((headers.get("License") or "").split())
    if spdx := PLAIN_NAMES.get(field.lower().removeprefix("the ")):
        return spdx, f"METADATA License {field}"
    found = {name: from_text(text) for name, text in licence_texts}
    if found and all(found.values()):
        return " AND ".join(dict.fromkeys(found.values())), f"text of {', '.join(found)}"
    told = classifiers or ([field[:60]] if field else [])
    return (
        "",
        f"METADATA says {', '.join(told)}, which is no single licence"
        if told
        else "METADATA names no licence",
    )
