"""The user's own evaluation sets: JSONL files of prompts with tests, or with reference answers.

Read when the run is planned, so that a wrong line is reported before anything is trained. Imports
the standard library only, because every `finetune plan` calls it.
"""

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.decontamination.set_fields import NAMES, value_of
from tasks.core.decontamination.set_formats import standard
from tasks.core.errors import PipelineError
from tasks.core.system.home import home, resolve_path
from tasks.evaluation.problems.languages.tools import TOOLS, language_named

if TYPE_CHECKING:
    from tasks.core.settings.config import View
    from tasks.core.settings.evaluate import EvaluationSet


@dataclass(frozen=True)
class SetLine:
    """One line of a set.

    Attributes:
        name: Unique in the evaluation: the set's name and the line's id or number.
        prompt: Code up to the end of a docstring, or words.
        input: More of it, for the template's input section; "" none.
        answer: Reference answer; "" in a set of tests.
        entry: Name of the function that the tests call; "" in a set of answers.
        tests: Text that defines `check(candidate)`, or asserts that call the function.
        solution: A correct continuation of the prompt, or a correct answer to words; "" unknown.
        language: Of prompt and tests, where it is not Python; a key of `tools.TOOLS`.
        stop_words: Texts before which an answer in such a language ends.
    """

    name: str
    prompt: str
    input: str = ""
    answer: str = ""
    entry: str = ""
    tests: str = ""
    solution: str = ""
    language: str = ""
    stop_words: tuple[str, ...] = ()


def sources(config: "View", digest_of: Callable[[Path], str]) -> dict[str, str]:
    """Digest of each set by its name, and versions of the packages that it names.

    Raises:
        PipelineError: A set or a package is missing, or a line of the set is wrong.
    """
    digests = {}
    for own in config.evaluate.sets:
        read(own)
        digests[own.name] = digest_of(resolve_path(own.path))
        if not own.packages:
            continue
        from tasks.core.sandbox import packages  # here, as few plans need it

        packages.folders(own.packages)
        for package, version in packages.versions(own.packages).items():
            digests[f"{own.name}: {package}"] = version
    return digests


def read(own: "EvaluationSet") -> list[SetLine]:
    """The first `max_problems` lines of a set.

    Raises:
        PipelineError: The file is missing or empty, or a line is wrong; names file and line.
    """
    path = resolve_path(own.path)
    try:
        if not path.is_file() and path.exists():
            raise OSError(0, "not a file")  # opening a FIFO waits for a writer without end
        # not splitlines: JSON strings may contain U+2028 and other line separators
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PipelineError(
            f"evaluation set {own.name} can't be read from {path}: {why}",
            f"Check evaluate.sets; a relative path starts at {home()}.",
        ) from error
    lines: list[SetLine] = []
    where: dict[str, int] = {}
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = _line(own.name, own.kind, number, text)
            if line.name in where:
                raise ValueError(
                    f"line {where[line.name]} has the same id\nGive each line a unique id"
                )
        except ValueError as error:
            problem, _, remedy = str(error).partition("\n")
            raise PipelineError(f"{path}, line {number}: {problem}", f"{remedy}.") from error
        where[line.name] = number
        lines.append(line)
    if not lines:
        raise PipelineError(
            f"evaluation set {own.name} has 0 lines ({path})", "Write one JSON object a line."
        )
    return lines[: own.max_problems]


def _line(name: str, kind: str, number: int, text: str) -> SetLine:
    """One line; a ValueError has problem and remedy on two lines."""
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})\nWrite one JSON object a line") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 100,000 brackets
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"not readable JSON ({why})\nRemove the value") from error
    if not isinstance(raw, dict):
        raise ValueError(f"a {type(raw).__name__}, not an object\nWrite {{...}} with named fields")
    raw = standard(raw)
    identity = _checked("id", str(value_of(raw, "id", "") or number))
    common: dict[str, Any] = {
        "name": identity if identity.startswith(f"{name}/") else f"{name}/{identity}",
        "prompt": _text(raw, "prompt"),
    }
    if kind == "answers":
        return SetLine(
            **common, answer=_text(raw, "answer"), input=_text(raw, "input", needed=False)
        )
    language = str(raw.get("language") or "python").lower()
    if language not in ("python", "py"):
        return _in_other_language(raw, common, language)
    if "language" not in raw and value_of(raw, "entry", None) is None:
        raise ValueError(
            "no field entry_point\nAdd entry_point, the function that is tested; a set of another "
            f"language than Python needs language instead, one of {', '.join(sorted(TOOLS))}"
        )
    entry = _text(raw, "entry")
    if not entry.isidentifier():
        raise ValueError(
            f"entry_point {entry!r} is not a function name\nName the function that is tested"
        )
    tests = value_of(raw, "tests", "")
    tests = "\n".join(map(str, tests)) if isinstance(tests, list) else tests
    if not isinstance(tests, str) or not tests.strip():
        raise ValueError(
            "no field test\nAdd test: a text that defines check(candidate), or asserts"
        )
    tests = _checked("test", tests)
    try:
        ast.parse(tests)
    except SyntaxError as error:
        raise ValueError(f"test is not Python ({error.msg})\nCorrect the text in test") from error
    except (ValueError, RecursionError, MemoryError) as error:
        why = "an expression is nested too deeply"
        raise ValueError(f"test can't be compiled ({why})\nDivide it in test") from error
    return SetLine(
        **common, entry=entry, tests=tests, solution=_text(raw, "solution", needed=False)
    )


def _in_other_language(raw: Mapping[str, Any], common: dict[str, Any], language: str) -> SetLine:
    """A line whose prompt is code of another language than Python, with tests that follow it."""
    key = language_named(language)
    if not key:
        raise ValueError(
            f"programs in {language} can't be run\nUse one of python, {', '.join(sorted(TOOLS))}"
        )
    words = raw.get("stop_words") or raw.get("stop_tokens") or []
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise ValueError('stop_words is not a list of texts\nWrite ["...", "..."]')
    return SetLine(
        **common,
        tests=_text(raw, "tests"),
        solution=_text(raw, "solution", needed=False),
        language=key,
        stop_words=tuple(words),
    )


def _text(raw: Mapping[str, Any], field: str, needed: bool = True) -> str:
    value = value_of(raw, field, None if needed else "")
    known = NAMES.get(field, (field,))[0]
    if value is None or (needed and isinstance(value, str) and not value.strip()):
        raise ValueError(f"no field {known}\nAdd {known}: a text")
    if not isinstance(value, str):
        raise ValueError(f"{known} is a {type(value).__name__}, not a text\nPut it in quotes")
    return _checked(known, value)


def _checked(field: str, value: str) -> str:
    """The text, if a file, a tokenizer and Python accept it."""
    if "\0" in value:
        raise ValueError(f"{field} contains a NUL byte\nRemove it")
    if lone := next((c for c in value if "\ud800" <= c <= "\udfff"), ""):
        raise ValueError(f"{field} holds half of a character (\\u{ord(lone):04x})\nRemove it")
    return value
