import json

from tasks.core.languages.registry import BY_NAME
from tasks.ingestion.code_windows import cut, holes

GO = "package p\n\n" + "".join(
    f"// F{n} adds é.\nfunc F{n}(a int) int {{\n\tb := a + {n}\n\treturn g(b, {n})\n}}\n\n"
    for n in range(40)
)
DATA = GO.encode()
SOURCE = BY_NAME["go"].parse(GO)


def windows(max_bytes: int) -> list[tuple[int, int]]:
    return list(cut(DATA, SOURCE.boundaries(), max_bytes))


def test_windows_cover_the_file_without_overlap_and_end_between_functions() -> None:
    found = windows(500)
    assert b"".join(DATA[a:b] for a, b in found) == DATA
    assert all(b - a <= 500 for a, b in found)
    assert all(DATA[a:].startswith(b"// F") for a, _ in found[1:])


def test_what_has_no_boundary_is_cut_between_lines_and_never_inside_a_character() -> None:
    long = ("é" * 30 + "\n").encode() * 50
    assert all(long[a:b].endswith(b"\n") for a, b in cut(long, [], 200))
    one_line = "é".encode() * 500
    assert "".join(one_line[a:b].decode() for a, b in cut(one_line, [], 201)) == "é" * 500


def drawn(character_share: float, path: str = "p.go"):
    return list(holes(SOURCE, DATA, windows(500), path, 6, character_share, 500))


def test_holes_with_what_is_around_them_are_parts_of_the_file() -> None:
    found = drawn(0.3)
    assert len(found) > 20
    for hole in found:
        assert hole.prefix + hole.middle + hole.suffix in GO and hole.middle.strip()
        assert len((hole.prefix + hole.middle + hole.suffix).encode()) <= 500


def test_holes_are_those_of_syntax_unless_they_are_drawn_by_character() -> None:
    texts = {hole.middle for hole in drawn(0.0)}
    assert any(text.startswith("return g(b, ") for text in texts)  # a statement or rest of a line
    assert any(text.startswith(("g(b, ", "(b, ", "a + ")) for text in texts)  # an expression
    assert any(text.startswith("\n\tb := a") for text in texts)  # a body without its braces
    assert not any(hole.middle.startswith("\n\tb := a") for hole in drawn(1.0))


def test_the_same_file_has_the_same_holes_and_another_path_has_others() -> None:
    assert drawn(0.1) == drawn(0.1) != drawn(0.1, "q.go")


def test_a_hole_is_stored_as_prefix_middle_and_suffix() -> None:
    hole = drawn(0.0)[0]
    assert json.loads(hole.packed())["fill"]["middle"] == hole.middle
