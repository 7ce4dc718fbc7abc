"""Sets with tests in other languages, in the forms of MultiPL-E and HumanEval-X."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import PipelineError
from tasks.core.sandbox import PASS, Sandbox
from tasks.core.settings.evaluate import EvaluationSet
from tasks.evaluation.generation.stop_rules import answer_end
from tasks.evaluation.problems import user_sets, user_tests
from tasks.evaluation.problems.grading import job
from tasks.evaluation.problems.languages import tool, tools
from tasks.evaluation.problems.programs import program_of
from tasks.evaluation.problems.protocol import Problem
from tasks.evaluation.problems.self_test import SelfTestError, self_test
from tasks.evaluation.results import COMPLETION
from tests.unit.evaluation.conftest import RunStage

needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
needs_gpp = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")

MULTIPL_E = {
    "name": "HumanEval_53_add",
    "language": "js",
    "prompt": "//Add two numbers x and y\nfunction add(x, y){\n",
    "tests": "const assert = require('node:assert');\n\n\nfunction test() {\n"
    "  let candidate = add;\n  assert.deepEqual(candidate(2, 3),5);\n}\n\ntest();",
    "stop_tokens": ["\nfunction ", "\n/*", "\n//", "\nconsole.log"],
}
HUMANEVAL_X_JS = {
    "task_id": "JavaScript/53",
    "prompt": "/* Add two numbers x and y\n  */\nconst add = (x, y) => {\n",
    "declaration": "\nconst add = (x, y) => {\n",
    "canonical_solution": "  return x + y;\n}\n\n",
    "test": "const testAdd = () => {\n  console.assert(add(0, 1) === 1)\n}\n\ntestAdd()\n",
    "example_test": "",
}
HUMANEVAL_X_CPP = {
    "task_id": "CPP/53",
    "prompt": "/*\nAdd two numbers x and y\n*/\n#include<stdio.h>\nint add(int x,int y){\n",
    "declaration": "int add(int x,int y){\n",
    "canonical_solution": "    return x+y;\n}\n",
    "test": "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (add(0, 1) == 1);\n}\n",
}
BASH = {
    "name": "HumanEval_53_add",
    "language": "sh",
    "prompt": "#!/bin/bash\n# Add two numbers.\nadd() {\n",
    "tests": '}\nset -e\n[[ $(add 2 3) = "5" ]]\n',
    "stop_tokens": ["\n}"],
}


MULTIPL_E_TS = {
    "name": "HumanEval_53_add",
    "language": "ts",
    "prompt": "//Add two numbers x and y\nfunction add(x: number, y: number): number {\n",
    "tests": "declare var require: any;\nconst assert = require('node:assert');\n\n\n"
    "function test() {\n  let candidate = add;\n  assert.deepEqual(candidate(2, 3),5);\n}\n\n"
    "test();",
    "stop_tokens": ["\nfunction ", "\n/*", "\n//", "\nclass"],
}
MULTIPL_E_GO = {
    "name": "HumanEval_53_add",
    "language": "go",
    "prompt": 'package add_test\n\nimport (\n    "testing"\n    "fmt"\n)\n\n// Add two numbers.\n'
    "func add(x int, y int) int {\n",
    "tests": "func TestAdd(t *testing.T) {\n  candidate := add\n"
    '  if fmt.Sprintf("%v", candidate(2, 3)) != "5" {\n    t.Errorf("wrong")\n  }\n}\n',
    "stop_tokens": ["\nfunc", "struct", "\n// "],
}
HUMANEVAL_X_GO = {
    "task_id": "Go/53",
    "prompt": "import (\n)\n\n// Add two numbers x and y\nfunc Add(x int, y int) int {\n",
    "import": "import (\n)",
    "declaration": "\nfunc Add(x int, y int) int {\n",
    "canonical_solution": "    return x + y\n}\n\n",
    "test": "func TestAdd(t *testing.T) {\n    assert := assert.New(t)\n"
    "    assert.Equal(5, Add(2, 3))\n}\n",
    "test_setup": 'package main\n\nimport (\n    "testing"\n'
    '    "github.com/stretchr/testify/assert"\n)\n\n',
}
MULTIPL_E_RUST = {
    "name": "HumanEval_53_add",
    "language": "rs",
    "prompt": "/// Add two numbers x and y\nfn add(x: isize, y: isize) -> isize {\n",
    "tests": "}\n\nfn main() {\n    let candidate = add;\n    assert_eq!(candidate(2, 3), 5);\n}\n",
    "stop_tokens": ["\n}"],
}
HUMANEVAL_X_RUST = {
    "task_id": "Rust/53",
    "prompt": "\nfn main(){    \n} \n\nuse std::{cmp::max, collections::HashMap};\n"
    "use rand::Rng;\nuse regex::Regex;\nuse md5;\n/*\n Add two numbers x and y\n*/\n"
    "fn add(x:i32, y:i32) -> i32{\n",
    "declaration": "fn add(x:i32, y:i32) -> i32{\n",
    "canonical_solution": "    return x + y;\n}\n\n",
    "test": "#[cfg(test)]\nmod tests {\n    use super::*;\n\n    #[test]\n    fn test_add() {\n"
    "        assert!(add(2, 3) == 5);\n    }\n}\n",
}
MULTIPL_E_JAVA = {
    "name": "HumanEval_53_add",
    "language": "java",
    "prompt": "import java.util.*;\nclass Problem {\n    // Add two numbers x and y\n"
    "    public static long add(long x, long y) {\n",
    "tests": "    }\n    public static void main(String[] args) {\n"
    "    assert(add((2l), (3l)) == (5l));\n    }\n\n}\n",
    "stop_tokens": ["\n    }\n"],
}
HUMANEVAL_X_JAVA = {
    "task_id": "Java/53",
    "prompt": "import java.util.*;\nimport java.lang.*;\n\nclass Solution {\n    /**\n"
    "    Add two numbers x and y\n     */\n    public int add(int x, int y) {\n",
    "declaration": "class Solution {\n    public int add(int x, int y) {\n",
    "canonical_solution": "        return x + y;\n    }\n}\n",
    "test": "public class Main {\n    public static void main(String[] args) {\n"
    "        Solution s = new Solution();\n"
    "        List<Boolean> correct = Arrays.asList(s.add(0, 1) == 1, s.add(2, 3) == 5);\n"
    "        if (correct.contains(false)) {\n            throw new AssertionError();\n"
    "        }\n    }\n}\n",
}


def needs(language: str) -> pytest.MarkDecorator:
    missing = tools.TOOLS[language].missing()
    return pytest.mark.skipif(missing != "", reason=f"{missing} is not installed")


def own(folder: Path, *lines: dict[str, Any]) -> EvaluationSet:
    path = folder / "own.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return EvaluationSet(name="own", path=str(path))


def problem(folder: Path, line: dict[str, Any], mode: Any = "auto") -> Problem:
    (found,) = user_tests.from_lines("own", user_sets.read(own(folder, line)), mode)
    return found


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox.best("unshare", workers=1)


@pytest.mark.parametrize(
    ("line", "right", "wrong"),
    [
        pytest.param(
            MULTIPL_E,
            "  return x + y;\n}\n\nfunction main() { boom",
            "  return x - y;\n}\n",
            marks=needs_node,
            id="MultiPL-E, JavaScript",
        ),
        pytest.param(
            HUMANEVAL_X_JS,
            "  return x + y;\n}\nboom(",
            "  return x - y;\n}\n",
            marks=needs_node,
            id="HumanEval-X, JavaScript",
        ),
        pytest.param(
            HUMANEVAL_X_CPP,
            "    return x + y;\n}\nint main() { return 1; }",
            "    return x - y;\n}\n",
            marks=needs_gpp,
            id="HumanEval-X, C++",
        ),
        pytest.param(
            MULTIPL_E_TS,
            "  const sum: number = x + y;\n  return sum;\n}\n\nfunction main() { boom",
            "  return x - y;\n}\n",
            marks=needs("typescript"),
            id="MultiPL-E, TypeScript",
        ),
        pytest.param(
            MULTIPL_E_GO,
            "    return x + y\n}\n\nfunc boom",
            "    return x - y\n}\n",
            marks=needs("go"),
            id="MultiPL-E, Go",
        ),
        pytest.param(
            HUMANEVAL_X_GO,
            "    return x + y\n}\n\nfunc boom",
            "    return x - y\n}\n",
            marks=needs("go"),
            id="HumanEval-X, Go",
        ),
        pytest.param(
            MULTIPL_E_RUST,
            "    x + y\n}\n\nfn boom",
            "    x - y\n}\n",
            marks=needs("rust"),
            id="MultiPL-E, Rust",
        ),
        pytest.param(
            HUMANEVAL_X_RUST,
            "    x + y\n}\n\nfn boom",
            "    x - y\n}\n",
            marks=needs("rust"),
            id="HumanEval-X, Rust",
        ),
        pytest.param(
            MULTIPL_E_JAVA,
            "        return x + y;\n    }\n\n    boom",
            "        return x - y;\n    }\n",
            marks=needs("java"),
            id="MultiPL-E, Java",
        ),
        pytest.param(
            HUMANEVAL_X_JAVA,
            "        return x + y;\n    }\n\n    boom",
            "        return x - y;\n    }\n}\n",
            marks=needs("java"),
            id="HumanEval-X, Java",
        ),
        pytest.param(BASH, "  echo $(($1 + $2))\n}\nboom", "  echo 4\n}\n", id="MultiPL-E, Bash"),
    ],
)
def test_a_right_answer_passes_and_a_wrong_one_does_not(
    tmp_path: Path, sandbox: Sandbox, line: dict[str, Any], right: str, wrong: str
) -> None:
    asked = problem(tmp_path, line)
    outcomes = [
        sandbox.run(job(asked, program_of(asked, COMPLETION, text), 60)) for text in (right, wrong)
    ]
    assert outcomes[0].status == PASS, outcomes[0].detail
    assert outcomes[1].status in ("wrong", "exception"), outcomes[1].detail


@needs_node
def test_a_wrong_solution_of_a_set_stops_the_evaluation(tmp_path: Path, sandbox: Sandbox) -> None:
    line = HUMANEVAL_X_JS | {"canonical_solution": "  return x * y;\n}\n"}
    with pytest.raises(SelfTestError, match="own/JavaScript/53: its own solution"):
        self_test(sandbox, [problem(tmp_path, line)], 30)
    assert self_test(sandbox, [problem(tmp_path, HUMANEVAL_X_JS)], 30).problems


@needs_node
def test_a_program_in_javascript_has_no_network_and_no_files_of_the_user(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    asked = problem(tmp_path, MULTIPL_E)
    spy = f"  require('fs').readFileSync('{tmp_path}/own.jsonl'); return x + y;\n}}\n"
    outcome = sandbox.run(job(asked, program_of(asked, COMPLETION, spy), 30))
    assert outcome.status != PASS
    assert "ENOENT" in outcome.detail


def test_a_set_in_bash_with_windows_line_ends_passes_right_answers_alone(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    windows = {k: v.replace("\n", "\r\n") for k, v in BASH.items() if isinstance(v, str)}
    asked = problem(tmp_path, BASH | windows)
    outcomes = [
        sandbox.run(job(asked, program_of(asked, COMPLETION, text), 30)).status
        for text in ("\n  echo $(($1 + $2))\n}\n", "\n  echo 4\n}\n")
    ]
    assert outcomes[0] == PASS and outcomes[1] != PASS


def test_an_answer_ends_at_a_stop_word_or_at_the_closing_bracket() -> None:
    assert answer_end("f(){\n", ["\n}", "\n//"], "  x();\n// y\n}\n") == len("  x();")
    text = "  if (x) {\n    y();\n  }\n}\nmore();"
    assert answer_end("f() {\n", [], text) == text.index("more") - 1
    assert answer_end("f() {\n", [], "  x();\n") is None


def test_without_the_tool_a_problem_is_not_run_and_the_report_says_so(
    tmp_path: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool.LanguageTool, "missing", lambda self, program="": "node")
    made = own(tmp_path, MULTIPL_E)
    assert problem(tmp_path, MULTIPL_E).not_judged == "not run: no node"
    _, out = run_stage(sets=[made.model_dump()])
    assert "1 of 1 problems of own (completion) are left out: not run: no node." in (
        out / "report.html"
    ).read_text(encoding="utf-8")


def test_a_solution_in_rust_that_needs_a_crate_is_not_run(tmp_path: Path) -> None:
    needed = HUMANEVAL_X_RUST | {"canonical_solution": "    md5::compute(x);\n}\n"}
    assert problem(tmp_path, needed).not_judged.startswith("not run: no ")


def test_a_form_of_a_language_that_is_not_installed_gives_way_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tool, "_path", lambda name: "" if name in ("tsc", "node") else name)
    assert "['deno', 'run', '--no-check', 'main.ts']" in tools.TOOLS["typescript"].driver(
        "let x = 1;"
    )
    monkeypatch.setattr(tool, "_path", lambda name: "")
    assert tools.TOOLS["typescript"].missing() == "node or tsc or deno or bun"


def test_another_language_is_refused_with_those_that_can_be_run(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="programs in cobol can't be run") as failed:
        user_sets.read(own(tmp_path, MULTIPL_E | {"language": "cobol"}))
    assert "bash, cpp, go, java, javascript, rust, typescript" in failed.value.remedy
    for words in ([1], "\n}"):
        with pytest.raises(PipelineError, match="stop_words is not a list of texts"):
            user_sets.read(own(tmp_path, MULTIPL_E | {"stop_tokens": words}))


def test_a_set_without_its_language_is_told_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no field entry_point") as failed:
        user_sets.read(own(tmp_path, {k: v for k, v in MULTIPL_E.items() if k != "language"}))
    assert "another language than Python needs language instead" in failed.value.remedy
