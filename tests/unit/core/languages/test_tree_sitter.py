import time

import pytest

from tasks.core.languages.protocol import DocumentedFunction, NotParsableError
from tasks.core.languages.registry import BY_NAME, LANGUAGES, parse

# a documented function of each language, and a method where the language has them
TEXTS = {
    "javascript": "/** Adds two. */\nexport function add(a, b) {\n  return a + b;\n}\n"
    "class P {\n  /** Takes. */\n  take(n) {\n    return n;\n  }\n}\n",
    "typescript": "/** Adds two. */\nexport const add = (a: number, b: number): number => a + b;\n"
    "class P {\n  /** Takes. */\n  take(n: number) {\n    return n;\n  }\n}\n",
    "tsx": "/** Adds two. */\nexport function add(a: T, b: T) {\n  return <b>{a + b}</b>;\n}\n"
    "class P {\n  /** Takes. */\n  take(n: number) {\n    return n;\n  }\n}\n",
    "go": "package p\n\n// Adds two.\nfunc add(a, b int) int {\n\treturn a + b\n}\n\n"
    "// Takes.\nfunc (p *P) take(n int) int {\n\treturn n\n}\n",
    "rust": "/// Adds two.\n#[inline]\npub fn add(a: i64, b: i64) -> i64 {\n    a + b\n}\n"
    "impl P {\n    /// Takes.\n    fn take(&self, n: i64) -> i64 {\n        n\n    }\n}\n",
    "java": "class P {\n    /** Takes. */\n    int take(int n) {\n        return n;\n    }\n}\n",
    "c": "/* Adds two. */\nstatic long *add(long a, long b)\n{\n    return a + b;\n}\n",
    "cpp": "namespace n {\n// Adds two.\ntemplate <typename T>\nT add(T a, T b) { return a + b; }\n"
    "class P {\n  /// Takes.\n  int take(int n) { return n; }\n};\n}\n",
    "csharp": "namespace N {\nclass P\n{\n    /// <summary>Takes.</summary>\n"
    "    public int take(int n)\n    {\n        return n;\n    }\n}\n}\n",
    "ruby": "# Adds two.\ndef add(a, b)\n  a + b\nend\n"
    "class P\n  # Takes.\n  def take(n)\n    n\n  end\nend\n",
    "php": "<?php\n/** Adds two. */\nfunction add($a, $b) {\n    return $a + $b;\n}\n"
    "class P {\n    /** Takes. */\n    public function take($n) {\n        return $n;\n    }\n}\n",
    "kotlin": "/** Adds two. */\nfun add(a: Int, b: Int = 1): Int {\n  return a + b\n}\n"
    "class P {\n  /** Takes. */\n  private fun take(n: Int): Int {\n    return n\n  }\n}\n",
    "scala": "object Main {\n}\n\n/** Adds two. */\ndef add(a: Int, b: Int): Int = {\n  a + b\n}\n"
    "class P {\n  /** Takes. */\n  def take(n: Int): Int = {\n    return n\n  }\n}\n",
    "bash": "# Adds two.\nadd() {\n  echo $(($1 + $2))\n}\n",
}


def functions(text: str, language: str, keep: bool = False) -> list[DocumentedFunction]:
    return BY_NAME[language].parse(text).documented_functions(keep, True)[0]


def test_every_language_is_tested() -> None:
    assert set(TEXTS) == {language.name for language in LANGUAGES} - {"python"}


@pytest.mark.parametrize("language", TEXTS)
def test_documented_functions_and_methods_are_found(language: str) -> None:
    found = {one.symbol: one for one in functions(TEXTS[language], language)}
    wanted = {"add": "Adds two.", "P.take": "Takes."}
    for symbol in [symbol for symbol in wanted if f"{wanted[symbol]}" in TEXTS[language]]:
        prose, _, signature = found.pop(symbol).instruction.partition("\n\n")
        assert prose == wanted[symbol] and symbol.rpartition(".")[2] in signature
    assert found == {}


@pytest.mark.parametrize("language", TEXTS)
def test_output_begins_with_the_signature_and_has_no_indentation(language: str) -> None:
    for one in functions(TEXTS[language], language):
        signature = one.instruction.partition("\n\n")[2].rpartition("a method of P\n")[2]
        assert one.output.startswith(signature) and one.output[-1] in "}d;"
        assert TEXTS[language].split("\n")[one.line - 1].strip() == one.output.split("\n")[0]


@pytest.mark.parametrize("language", TEXTS)
def test_text_that_does_not_parse_names_the_line(language: str) -> None:
    broken = TEXTS[language] + "\nif (( ] { return ) [[ <\n"
    with pytest.raises(NotParsableError) as error:
        BY_NAME[language].parse(broken if language not in ("bash", "ruby") else "x\nif ((\nend )")
    assert "not valid" in str(error.value) and error.value.line > 0


@pytest.mark.parametrize("language", TEXTS)
def test_a_function_by_itself_is_a_fragment_that_parses(language: str) -> None:
    for one in functions(TEXTS[language], language):
        source, reason = parse(one.output, language)
        assert source is not None, reason
        assert next(source.functions_and_methods()).name == one.symbol.rpartition(".")[2]


@pytest.mark.parametrize("language", TEXTS)
def test_renaming_keeps_the_shape_and_another_operation_does_not(language: str) -> None:
    def shapes(text: str) -> list[bytes | None]:
        return [one.shape() for one in BY_NAME[language].parse(text).functions_and_methods()]

    text = TEXTS[language]
    assert shapes(text) == shapes(text.replace("take", "pull").replace("  ", " \t"))
    if "a + b" in text or "$a + $b" in text:
        other = text.replace("a + b", "a - b").replace("$a + $b", "$a - $b")
        assert shapes(text) != shapes(other)


def test_names_that_a_function_binds_do_not_count() -> None:
    def shape(text: str) -> bytes | None:
        return next(BY_NAME["go"].parse(text).functions()).shape()

    one = shape("package p\nfunc f(a int) int {\n\tb := a\n\treturn g(b)\n}\n")
    assert one == shape("package p\nfunc h(x int) int {\n\ty := x\n\treturn g(y)\n}\n")
    assert one != shape("package p\nfunc h(x int) int {\n\ty := x\n\treturn k(y)\n}\n")


def test_comment_of_the_line_before_and_one_above_an_empty_line_do_not_document() -> None:
    assert functions("int a; // Counts all.\nint f(void) { return 1; }\n", "c") == []
    assert functions("// Counts all.\n\nint f(void) { return 1; }\n", "c") == []


@pytest.mark.parametrize("language", ["typescript", "tsx"])
def test_documentation_of_the_first_overload_is_that_of_the_function(language: str) -> None:
    text = (
        "/** Adds two. */\nexport function add(a: string): string;\n"
        "export function add(a: number): number;\n"
        "export function add(a: any) {\n  return a + a;\n}\n"
        "export function other(a: any) {\n  return a;\n}\n"
        "class P {\n  /** Takes. */\n  take(n: string): string;\n  take(n: any) {\n"
        "    return n;\n  }\n}\n"
    )
    found = {f.symbol: f.instruction.partition("\n")[0] for f in functions(text, language)}
    assert found == {"add": "Adds two.", "P.take": "Takes."}


def test_functions_in_functions_and_those_without_a_body_are_left_out() -> None:
    text = "/** Outer. */\nfunction f() {\n  /** Inner. */\n  function g() { return 1; }\n}\n"
    assert [one.symbol for one in functions(text, "javascript")] == ["f"]
    assert functions("/** Says. */\nint f(void);\n", "c") == []


def test_comments_below_an_indented_block_document_the_next_function() -> None:
    text = (
        "object O {\n  /** One. */\n  def a: Int =\n    1\n\n  /** Two. */\n  def b: Int = 2\n}\n"
    )
    found = functions(text, "scala")
    assert [one.instruction.partition("\n")[0] for one in found] == ["One.", "Two."]
    assert found[0].output == "def a: Int =\n  1"


def test_comment_between_signature_and_body_is_a_part_of_the_output_alone() -> None:
    (found,) = functions("# Adds two.\ndef add(a, b)\n  # rounds\n  a + b\nend\n", "ruby")
    assert found.instruction == "Adds two.\n\ndef add(a, b)"
    assert "# rounds" in found.output


def test_function_in_the_call_that_makes_a_named_value_is_found_once() -> None:
    text = (
        "/** Shows. */\nconst Show = memo((props) => {\n  return props.a;\n}, (a, b) => a === b);\n"
    )
    (found,) = functions(text, "javascript")
    assert (found.symbol, found.output) == ("Show", text.partition("\n")[2].rstrip())
    assert (
        functions("/** Routes. */\napp.get('/', (request) => request.end());\n", "javascript") == []
    )


def test_documentation_stays_in_the_output_when_asked() -> None:
    (found,) = functions(TEXTS["c"], "c", keep=True)
    assert found.output.startswith("/* Adds two. */\nstatic long")


def test_preprocessor_lines_that_the_grammar_does_not_know_exclude_their_function_alone() -> None:
    good = "/* Adds. */\nint f(int a) { return a; }\n" * 40
    odd = "/* Odd. */\nint g(int a) { MACRO(int) x y; return a; }\n"
    found, skipped = BY_NAME["c"].parse(good + odd).documented_functions(False, True)
    assert len(found) == 40 and skipped["functions that the grammar can't parse"] == 1


@pytest.mark.parametrize("language", TEXTS)
def test_spans_lie_around_their_position(language: str) -> None:
    text = TEXTS[language]
    data, source = text.encode(), BY_NAME[language].parse(text)
    position = data.index(b"return") if b"return" in data else data.rindex(b"+")
    for kind in ("statement", "body"):
        start, end = source.span(kind, position) or (0, 0)
        assert start <= position < end
    assert source.span("body", 0) is None


def test_boundaries_begin_with_the_comment_above() -> None:
    text = TEXTS["go"]
    found = BY_NAME["go"].parse(text).boundaries()
    assert [text[b.position :].split("\n")[0] for b in found if b.depth == 0] == [
        "package p",
        "// Adds two.",
        "// Takes.",
    ]


def test_spans_in_deeply_nested_text_are_found_in_a_moment() -> None:
    text = "x = " + "(" * 4000 + "1" + ")" * 4000 + ";\n"
    source = BY_NAME["javascript"].parse(text)
    begin = time.process_time()
    for position in range(4, 4004, 40):
        source.span("body", position)
    assert time.process_time() - begin < 5  # a walk to each parent from the root takes minutes


@pytest.mark.parametrize(
    ("language", "text", "symbols"),
    [
        (
            "javascript",
            "const Shape = class {\n  /** Gives it. */\n  get area() {\n    return this.a;\n  }\n"
            "  /** Handles it. */\n  onClick = (e) => e.stop();\n};\n",
            ["Shape.area", "Shape.onClick"],
        ),
        (
            "java",
            "record Pair(int a) {\n  /** Checks it. */\n  Pair {\n    check(a);\n  }\n}\n"
            "enum Color {\n  RED {\n    /// Gives it.\n    int c() {\n      return 1;\n    }\n"
            "  };\n}\n",
            ["Pair.Pair", "Color.RED.c"],
        ),
        (
            "php",
            "<?php\nif (!function_exists('f')) {\n    /** Gives it. */\n    function f() {\n"
            "        return 1;\n    }\n}\n",
            ["f"],
        ),
        (
            "csharp",
            "class P {\n  /// <summary>Adds.</summary>\n  public static P operator +(P a, P b) {\n"
            "    return a;\n  }\n  /// <summary>Frees.</summary>\n  ~P() {\n    Free();\n  }\n}\n",
            ["P.+", "P.P"],
        ),
        (
            "cpp",
            "class P {\n  /// Says.\n  operator bool() const { return n; }\n};\n",
            ["P.operator bool"],
        ),
        ("c", "/* Gives one. */\nint (*pick(int kind))(void)\n{\n    return f;\n}\n", ["pick"]),
    ],
)
def test_symbol_is_the_name_that_the_code_gives(
    language: str, text: str, symbols: list[str]
) -> None:
    assert [one.symbol for one in functions(text, language)] == symbols


def test_attributes_of_a_module_are_not_those_of_its_first_function() -> None:
    text = "/// Of a.\n#[cfg(b)]\nmod a {\n    /// Adds.\n    fn f() -> u8 {\n        1\n    }\n}\n"
    (found,) = functions(text, "rust")
    assert (found.line, found.output) == (5, "fn f() -> u8 {\n    1\n}")
