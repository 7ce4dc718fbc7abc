"""Answer and tests of published sets -> one program of their language."""

import re

# Node's own assert of the console only prints; the tests of HumanEval-X rely on it
_ASSERT = 'console.assert = require("node:assert").ok;\n'
_GO_HEAD = re.compile(r"^package \w+\s+(?:import\s+(?:\([^)]*\)|\"[^\"]*\")\s+)*", re.MULTILINE)
_GO_IMPORT = re.compile(r"^import\s+(?:\([^)]*\)|\"[^\"]*\")\n", re.MULTILINE)
_RUST_CRATES = re.compile(r"^use (?:rand::Rng|regex::Regex|md5);\n", re.MULTILINE)
_CLASS = re.compile(r"^(?:(?:public|final|abstract)\s+)*class\s+(\w+)", re.MULTILINE)

# what the tests of HumanEval-X use of testify, which takes half a minute to compile; values are
# equal as there
GO_ASSERT = """package assert

import (
	"math"
	"reflect"
	"testing"
)

type Assertions struct{ t *testing.T }

func New(t *testing.T) *Assertions { return &Assertions{t} }

func (a *Assertions) check(ok bool, values ...interface{}) bool {
	a.t.Helper()
	if !ok {
		a.t.Errorf("Error: not as expected: %#v", values)
	}
	return ok
}

func (a *Assertions) Equal(want, got interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return a.check(reflect.DeepEqual(want, got), want, got)
}

func (a *Assertions) NotEqual(want, got interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return a.check(!reflect.DeepEqual(want, got), want, got)
}

func (a *Assertions) True(got bool, _ ...interface{}) bool {
	a.t.Helper()
	return a.check(got, got)
}

func (a *Assertions) False(got bool, _ ...interface{}) bool {
	a.t.Helper()
	return a.check(!got, got)
}

func (a *Assertions) Nil(got interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return a.check(got == nil || reflect.ValueOf(got).IsZero(), got)
}

func (a *Assertions) InDelta(want, got float64, delta float64, _ ...interface{}) bool {
	a.t.Helper()
	return a.check(math.Abs(want-got) <= delta, want, got)
}
"""


def with_assert(text: str) -> str:
    """A program in JavaScript whose `console.assert` fails."""
    return _ASSERT + text


def go_imports_first(text: str) -> str:
    """A program in Go: package and imports of the tests, where they have their own, replace those
    of the prompt."""
    found = list(_GO_HEAD.finditer(text))
    if not found or not text[: found[-1].start()].strip():
        return text
    head = found[-1]
    answer = _GO_IMPORT.sub("", _GO_HEAD.sub("", text[: head.start()]))
    return f"{head[0]}\n{answer}\n{text[head.end() :]}"


def without_crates(text: str) -> str:
    """A program in Rust without the crates that HumanEval-X imports everywhere and uses in three
    problems."""
    return _RUST_CRATES.sub("", text)


def main_class(text: str) -> str:
    """The class in Java to run: Main, or else the first one."""
    names = _CLASS.findall(text)
    return "Main" if "Main" in names or not names else str(names[0])


def unclosed(prompt: str) -> int:
    """How many blocks the code of a prompt leaves open, at least the function's own."""
    lines = [line.strip() for line in prompt.splitlines()]
    code = [line for line in lines if not line.startswith(("//", "*", "/*"))]
    depth = sum(line.endswith("{") for line in code) - sum(line.startswith("}") for line in code)
    return max(1, depth)
