"""Changes of the stages' real code: any of logic changes the keys of the stages that can reach it
and of no others; comments, docstrings, layout and type hints without effect change none."""

import ast
import copy
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.cache.code.normalize import BLIND_DECORATORS
from tasks.core.cache.code_digest import closure
from tasks.core.cache.digest_cache import DigestCache
from tasks.pipeline import PIPELINE

REPOSITORY = Path(__file__).resolve().parents[2]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
many = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Code:
    """A copy of the stages' code in which one module at a time is changed and put back."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.digests = DigestCache(None)
        shutil.copytree(
            REPOSITORY / "tasks", root / "tasks", ignore=shutil.ignore_patterns("__pycache__")
        )
        self._now = 1_000_000_000
        for path in (root / "tasks").rglob("*.py"):
            os.utime(path, (self._now, self._now))
        self.before = self.closures()
        reached = {m: {n for n, c in self.before.items() if m in c} for m in self._modules()}
        self.reached = {module: stages for module, stages in reached.items() if stages}
        self.functions = [
            (module, place)
            for module in sorted(self.reached)
            for place, node in enumerate(ast.walk(self.tree(module)))
            if isinstance(node, FUNCTIONS)
        ]

    def _modules(self) -> set[str]:
        return {module for closed in self.before.values() for module in closed}

    def closures(self) -> dict[str, dict]:
        return {stage.name: closure(stage.run, self.digests, self.root) for stage in PIPELINE}

    def path(self, module: str) -> Path:
        base = self.root.joinpath(*module.split("."))
        return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")

    def tree(self, module: str) -> ast.Module:
        return ast.parse(self.path(module).read_bytes())

    def moved_by(self, module: str, text: str) -> set[str]:
        """Stages whose code digest differs while `module` reads `text`."""
        path = self.path(module)
        original = path.read_bytes()
        self._now += 1
        path.write_text(text)
        os.utime(path, (self._now, self._now))
        try:
            after = self.closures()
        finally:
            path.write_bytes(original)
            os.utime(path, (1_000_000_000, 1_000_000_000))
        return {name for name in after if after[name] != self.before[name]}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return Code(tmp_path_factory.mktemp("code"))


def is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def logic_of(function: ast.AST) -> list[ast.AST]:
    """Nodes of a function but for docstrings and annotations."""
    found = []
    for name, value in ast.iter_fields(function):
        if name in ("annotation", "returns", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not (
                isinstance(child, ast.stmt)
                and (is_docstring(child) or (isinstance(child, ast.AnnAssign) and not child.value))
            ):
                found += [child, *logic_of(child)]
    return found


def change_constant(node: ast.AST) -> bool:
    if not isinstance(node, ast.Constant) or node.value is ...:
        return False
    if isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node.value, int | float):
        node.value += 1
    elif isinstance(node.value, str):
        node.value += "?"
    else:
        node.value = 7
    return True


def change_comparison(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare):
        return False
    node.ops[0] = ast.NotEq() if isinstance(node.ops[0], ast.Eq) else ast.Eq()
    return True


def change_operator(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp | ast.AugAssign):
        node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    else:
        return False
    return True


def change_name(node: ast.AST) -> bool:
    """Another function is called, another variable or attribute is read."""
    if isinstance(node, ast.Name):
        node.id += "_other"
    elif isinstance(node, ast.Attribute):
        node.attr += "_other"
    else:
        return False
    return True


def negate_condition(node: ast.AST) -> bool:
    if not isinstance(node, ast.If | ast.While | ast.IfExp):
        return False
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return True


def drop_statement(node: ast.AST) -> bool:
    body = getattr(node, "body", None)
    if not isinstance(body, list) or isinstance(body[-1], ast.Pass) or is_docstring(body[-1]):
        return False
    body[-1] = ast.Pass()
    return True


def add_statement(node: ast.AST) -> bool:
    if not isinstance(getattr(node, "body", None), list):
        return False
    node.body.append(ast.parse("unheard_of()").body[0])
    return True


CHANGES = (
    change_constant,
    change_comparison,
    change_operator,
    change_name,
    negate_condition,
    drop_statement,
    add_statement,
)


@many
@given(data=st.data())
def test_any_change_of_logic_changes_exactly_the_stages_that_can_reach_it(code, data):
    module, place = data.draw(st.sampled_from(code.functions), label="function")
    tree = code.tree(module)
    function = list(ast.walk(tree))[place]
    nodes = [function, *logic_of(function)]
    node = data.draw(st.sampled_from(nodes), label="node")
    possible = [change for change in CHANGES if change(copy.deepcopy(node))]
    if possible:
        data.draw(st.sampled_from(possible), label="change")(node)
    else:
        add_statement(function)
    text = ast.unparse(ast.fix_missing_locations(tree))
    assert code.moved_by(module, text) == code.reached[module]


def reword(tree: ast.Module, docstring: str) -> None:
    """Other docstrings everywhere; other type hints where nothing reads them."""
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)):
            if node.body and is_docstring(node.body[0]):
                del node.body[0]
            node.body.insert(0, ast.Expr(ast.Constant(docstring)))
        if isinstance(node, FUNCTIONS):
            names = [
                getattr(d.func if isinstance(d, ast.Call) else d, "attr", None)
                or getattr(d.func if isinstance(d, ast.Call) else d, "id", "")
                for d in node.decorator_list
            ]
            if set(names) <= BLIND_DECORATORS:
                node.returns = ast.Constant("another")
                for argument in (*node.args.args, *node.args.kwonlyargs):
                    argument.annotation = None


@settings(many, max_examples=60)
@given(data=st.data())
def test_comments_docstrings_layout_and_type_hints_change_no_stage(code, data):
    module = data.draw(st.sampled_from(sorted(code.reached)), label="module")
    tree = code.tree(module)
    reword(tree, data.draw(st.text("ab \n", max_size=8), label="docstring"))
    lines = ast.unparse(ast.fix_missing_locations(tree)).splitlines()
    text = "# a remark\n\n" + "\n".join(lines) + "\n\n# another\n"
    assert code.moved_by(module, text) == set()


def test_code_of_another_stage_changes_no_stage_but_that(code):
    packages = {stage.run.split(".")[1]: stage.name for stage in PIPELINE}
    for package, name in packages.items():
        module = f"tasks.{package}.run"
        text = code.path(module).read_text() + "\nEXTRA = 1\n"
        assert code.moved_by(module, text) == {name}


@pytest.mark.parametrize("stage", PIPELINE, ids=lambda stage: stage.name)
def test_no_stage_imports_by_a_name_that_the_digest_cannot_follow(code, stage):
    hidden = {"import_module", "__import__", "run_module", "run_path", "spec_from_file_location"}
    for module in code.before[stage.name]:
        called = {
            getattr(node.func, "attr", getattr(node.func, "id", ""))
            for node in ast.walk(code.tree(module))
            if isinstance(node, ast.Call)
        }
        assert called & hidden == set(), module
