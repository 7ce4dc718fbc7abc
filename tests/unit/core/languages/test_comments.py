import pytest

from tasks.core.languages.tree_sitter.comments import first_paragraph


@pytest.mark.parametrize(
    ("comment", "prose"),
    [
        ("/**\n * Adds all\n * amounts.\n *\n * More.\n * @param a b\n */", "Adds all amounts."),
        ("/** {@link Foo} of <b>all</b>. */", "Foo of all."),
        ("/// Adds.\n/// It rounds.", "Adds. It rounds."),
        ("//! Adds.", "Adds."),
        ("/*!\n * \\brief Adds.\n * \\param a b\n */", "Adds."),
        (
            '/// <summary>\n/// Adds <see cref="T:A.B"/>.\n/// </summary>\n/// <param>x</param>',
            "Adds B.",
        ),
        ("# Adds.\n#\n# @param a [Integer]", "Adds."),
        ("#######\n# Adds.\n#######", "Adds."),
        ("// eslint-disable-next-line\n// Adds.", "Adds."),
        ("// TODO: write this", ""),
        ("/** {@inheritdoc} */", ""),
        ("/* Copyright 2020 Somebody */", ""),
        ("// ------", ""),
    ],
)
def test_first_paragraph_is_prose_without_marks(comment: str, prose: str) -> None:
    assert first_paragraph(comment) == prose
