import pytest

from tasks.ingestion.licenses import license_of_header, license_of_package, license_of_text

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
