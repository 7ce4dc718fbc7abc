"""License of an installed distribution, from the most explicit statement of its metadata."""

from collections.abc import Mapping

from tasks.core.rows.spdx import canonical
from tasks.ingestion.licenses import FIELD_VALUES, conjunction, license_of_texts

# classifiers that name a single license; "BSD License" does not
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


def license_of_package(metadata: str, texts: Mapping[str, str]) -> tuple[str, str]:
    """(license, evidence) of a distribution, from the most explicit statement.

    Args:
        metadata: Text of METADATA.
        texts: {file name: text} of its LICENSE files.

    Returns:
        SPDX expression and where it was read; ("", why not) if it is unknown.
    """
    from email.parser import HeaderParser  # slow to import, and a plan needs only file names

    headers = HeaderParser().parsestr(metadata)
    if expression := headers.get("License-Expression"):
        return canonical(expression) or expression.strip(), "METADATA License-Expression"
    classifiers = [
        c.rpartition(" :: ")[2]
        for c in headers.get_all("Classifier", [])
        if c.startswith("License :: ")
    ]
    named = [CLASSIFIERS[c] for c in classifiers if c in CLASSIFIERS]
    if classifiers and len(named) == len(classifiers):
        return conjunction(named), f"METADATA Classifier {', '.join(classifiers)}"
    field = " ".join((headers.get("License") or "").split())
    if spdx := FIELD_VALUES.get(field.lower().removeprefix("the ")):
        return spdx, f"METADATA License {field}"
    if texts and (found := license_of_texts(texts))[0]:
        return found
    statements = classifiers or ([field[:60]] if field else [])
    if not statements:
        return "", "METADATA names no license"
    return "", f"METADATA says {', '.join(statements)}, which is not a single license"
