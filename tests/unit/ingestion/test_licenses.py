import pytest

from tasks.ingestion.licenses import (
    is_license_file,
    license_of_header,
    license_of_text,
    license_of_texts,
    license_of_value,
)
from tasks.ingestion.sources.package_license import license_of_package
from tasks.ingestion.sources.trees import TreeLicenses

MIT = (
    "Permission is hereby granted, free of charge ... "
    "The above copyright notice and this permission notice shall"
)
BSD = (
    "Redistribution and use in source and binary forms "
    "provided that the following conditions are met"
)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        ("Classifier: License :: OSI Approved :: MIT License\n", "MIT"),
        (
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: Apache Software License\n",
            "MIT AND Apache-2.0",
        ),
        ("License: Apache License, Version 2.0\n", "Apache-2.0"),
        ("License: my own\n", ""),
        ("", ""),
    ],
)
def test_most_explicit_statement_of_the_metadata_is_used(metadata: str, expected: str) -> None:
    licence, evidence = license_of_package(metadata, {})
    assert licence == expected and evidence


def test_bsd_classifier_is_resolved_by_the_license_text() -> None:
    metadata = "Classifier: License :: OSI Approved :: BSD License\n"
    text = BSD + " ... may be used to endorse or promote products derived"
    assert license_of_package(metadata, {"LICENSE": text}) == ("BSD-3-Clause", "text of LICENSE")
    assert license_of_package(metadata, {})[0] == ""


def test_unknown_license_text_beside_a_known_one_is_unknown() -> None:
    assert license_of_package("", {"LICENSE": MIT, "LICENSE.vendored": "ask us"})[0] == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "MIT"),
        (BSD, "BSD-2-Clause"),
        ("Apache License\n   Version 2.0, January 2004", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007", "GPL-3.0-only"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n Version 2.1", "LGPL-2.1-only"),
        ("All rights reserved.", ""),
    ],
)
def test_license_text_is_recognized(text: str, expected: str) -> None:
    assert license_of_text(text) == expected


def test_header_is_read_up_to_the_end_of_its_line() -> None:
    text = "# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\n# more\n"
    assert license_of_header(text)[0] == "Apache-2.0 WITH LLVM-exception"
    assert license_of_header("x = 1\n") == ("", "")


HOLDER = "Copyright (c) 2026 Example\n\n"
WHOLE_MIT = f"""MIT License

{HOLDER}Permission is hereby granted, free of charge, to any person obtaining a copy of this
software and associated documentation files (the "Software"), to deal in the Software without
restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
SHORT_APACHE = "Apache License\nVersion 2.0, January 2004\n"


@pytest.mark.parametrize(
    "more",
    [
        "The files below vendor/ are under the GNU General Public License, version 3.",
        "The Software may not be used for commercial purposes.",
        "Military use is forbidden, and so is any use by competitors of the holder.",
    ],
)
@pytest.mark.parametrize("place", ["{mit}\n{more}\n", "{more}\n\n{mit}"])
def test_a_license_text_that_says_more_is_unknown_and_its_file_named(more, place) -> None:
    if "Military" in more and place.startswith("{more}"):
        pytest.skip("a preface is searched for restrictions only, as it holds names")
    text = place.format(mit=WHOLE_MIT, more=more)
    found, evidence = license_of_texts({"LICENSE": text})
    assert found == "" and evidence.startswith("LICENSE: more than the text of ")


def test_a_whole_license_text_with_its_holders_is_known() -> None:
    many = WHOLE_MIT.replace(HOLDER, HOLDER * 20)
    assert license_of_text(WHOLE_MIT) == license_of_text(many) == "MIT"


@pytest.mark.parametrize(
    "choice",
    [
        "This may be used under the terms of either of the licences in LICENSE.MIT or "
        "LICENSE.APACHE, at your choice.",
        "Dual-licensed: see LICENSE.MIT and LICENSE.APACHE.",
        "This project is dual-licensed under the Apache-2.0 and MIT licenses.\n\n"
        "You may use this code under the terms of either license.",
    ],
)
def test_either_license_is_a_choice(choice: str) -> None:
    texts = {"LICENSE": choice, "LICENSE.APACHE": SHORT_APACHE, "LICENSE.MIT": WHOLE_MIT}
    found, evidence = license_of_texts(texts)
    assert found == "Apache-2.0 OR MIT" and evidence.startswith("LICENSE: either of")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (["MIT", "Apache-2.0"], "MIT AND Apache-2.0"),
        ("['mit', 'apache-2.0']", "MIT AND Apache-2.0"),
        ("MIT, ISC", "MIT AND ISC"),
        (["MIT OR ISC", "BSD-3-Clause"], "(MIT OR ISC) AND BSD-3-Clause"),
        ("apache 2.0", "Apache-2.0"),
        ("Our own", "Our own"),
        (None, ""),
        ([], ""),
    ],
)
def test_lists_of_licenses_in_a_column_are_read(value: object, found: str) -> None:
    assert license_of_value(value) == found


def test_a_header_that_is_no_expression_is_unknown_with_its_text() -> None:
    found, evidence = license_of_header("# SPDX-License-Identifier: MIT OR\n")
    assert found == "" and "MIT OR" in evidence
    assert license_of_header("# SPDX-License-Identifier: " + "(" * 4000 + "\n")[0] == ""


def test_the_license_in_a_wheels_metadata_holds_for_its_code() -> None:
    licenses = TreeLicenses({"tool-1.0.dist-info/licenses/LICENSE": WHOLE_MIT}, "")
    assert licenses.of("tool/a.py")[0] == "MIT"


def test_license_files_are_known_by_their_names() -> None:
    names = ("LICENSE", "license.txt", "a/COPYING", "LICENSE-MIT", "MIT-LICENSE", "UNLICENSE")
    assert all(map(is_license_file, names))
    assert not any(map(is_license_file, ("check-license", "MIT-LICENSED", "a.py", "README")))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("to any person", "to any person who is not a company"),
        (
            "THE SOFTWARE IS PROVIDED",
            "The Software shall be used for Good, not Evil. IT IS PROVIDED",
        ),
        ("free of charge", "free of charge and for research"),
    ],
)
def test_a_license_text_with_other_words_in_it_is_unknown(before: str, after: str) -> None:
    assert before in WHOLE_MIT
    assert license_of_text(WHOLE_MIT) == "MIT"
    assert license_of_text(WHOLE_MIT.replace(before, after)) == ""


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("MIT\n", "MIT"),
        ("Apache-2.0 OR MIT", "Apache-2.0 OR MIT"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        ("Creative Commons Attribution 4.0 International Public License", "CC-BY-4.0"),
        ("Attribution-NonCommercial 4.0 International\n\nCreative Commons", "CC-BY-NC-4.0"),
        ("Business Source License 1.1\n\nLicensor: Example", "BUSL-1.1"),
        ("DO WHAT THE FUCK YOU WANT TO PUBLIC LICENSE\nVersion 2, December 2004\n", "WTFPL"),
    ],
)
def test_a_file_that_names_a_license_has_it(text: str, licence: str) -> None:
    assert license_of_text(text) == licence


def test_a_slash_in_a_header_is_a_choice() -> None:
    assert (
        license_of_header("// SPDX-License-Identifier: MIT/Apache-2.0\n")[0] == "MIT OR Apache-2.0"
    )


def test_texts_in_a_folder_of_licenses_hold_for_the_folder_around_it() -> None:
    texts = {"a/LICENSES/MIT.txt": WHOLE_MIT, "b/LICENSES/MIT.txt": WHOLE_MIT, "b/LICENSE": "x"}
    assert all(map(is_license_file, texts))
    licenses = TreeLicenses(texts, "")
    assert licenses.of("a/src/x.py")[0] == "MIT"
    assert licenses.of("b/src/x.py")[0] == ""
