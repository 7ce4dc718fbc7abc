import shutil
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tasks
from tasks.core.cache.cache_key import key_of
from tasks.core.cache.causes import _changed_code
from tasks.core.cache.code_digest import closure, code_digest
from tasks.core.cache.digest_cache import DigestCache
from tasks.pipeline import PIPELINE


@pytest.fixture
def package(tmp_path):
    """A project with tasks.a (imports a helper inside a function), tasks.helper and tasks.other."""
    (tmp_path / "tasks").mkdir()
    write = {
        "__init__": '"""Doc."""',
        "a": "def run():\n    from tasks.helper import half\n    return half(4)\n",
        "helper": 'LIMIT = 3\n\ndef half(x: int) -> int:\n    """Half."""\n    return x // 2\n',
        "other": "def unrelated():\n    return 1\n",
    }
    for name, text in write.items():
        (tmp_path / "tasks" / f"{name}.py").write_text(text)
    return tmp_path


def digest(root):
    return key_of({"code": closure("tasks.a:run", DigestCache(None), root)})


def edit(root, module, old, new):
    path = root / "tasks" / f"{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_helper_imported_inside_a_function_belongs_to_the_closure(package):
    assert "tasks.helper" in closure("tasks.a:run", DigestCache(None), package)


def test_module_that_is_not_imported_does_not(package):
    assert "tasks.other" not in closure("tasks.a:run", DigestCache(None), package)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x // 2", "return x // 3"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("def half(x: int)", "def half(x: int, y: int = 0)"),
    ],
)
def test_changed_logic_constant_or_signature_changes_the_digest(package, old, new):
    before = digest(package)
    edit(package, "helper", old, new)
    assert digest(package) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Half."""', '"""One half, rounded down."""'),
        ("return x // 2", "return (  # a comment\n        x // 2\n    )"),
        ("x: int) -> int", "x: float) -> float"),
        ("LIMIT = 3", "LIMIT: int = 3"),
        ("LIMIT = 3\n", "\n\n# three\nLIMIT = 3\n"),
    ],
)
def test_docstring_comment_layout_and_annotation_do_not(package, old, new):
    before = digest(package)
    edit(package, "helper", old, new)
    assert digest(package) == before


def test_annotation_of_a_class_field_does(package):
    edit(package, "helper", "LIMIT = 3", "class Row:\n    limit: int = 3\n")
    before = digest(package)
    edit(package, "helper", "limit: int", "limit: float")
    assert digest(package) != before


def test_definitions_that_changed_can_be_named(package):
    before = closure("tasks.a:run", DigestCache(None), package)["tasks.helper"]
    edit(package, "helper", "return x // 2", "return x // 3")
    after = closure("tasks.a:run", DigestCache(None), package)["tasks.helper"]
    assert [name for name in after if after[name] != before[name]] == ["half"]


def test_relative_import_is_followed(package):
    (package / "tasks" / "a.py").write_text(
        textwrap.dedent("from .helper import half\n\ndef run():\n    return half(4)\n")
    )
    assert "tasks.helper" in closure("tasks.a:run", DigestCache(None), package)


def test_module_that_a_process_is_started_with_belongs_to_the_closure(package):
    edit(package, "a", "return half(4)", 'return half(4), ["python", "-m", "tasks.other"]')
    assert "tasks.other" in closure("tasks.a:run", DigestCache(None), package)


MODULES = {
    "a": "from tasks import helper\n\ndef run():\n    helper.half(4), call('tasks.helper:half')\n",
    "b": "from tasks.helper import half as halved\n\ndef run():\n    return halved(4)\n",
}


@pytest.mark.parametrize("module", MODULES)
def test_renamed_module_keeps_the_digest(package, module):
    (package / "tasks" / "a.py").write_text(MODULES[module])
    before = digest(package)
    (package / "tasks" / "deep").mkdir()
    (package / "tasks" / "deep" / "__init__.py").write_text('"""A new folder."""\n')
    (package / "tasks" / "helper.py").rename(package / "tasks" / "deep" / "halves.py")
    text = MODULES[module].replace("from tasks import helper", "from tasks.deep import halves")
    text = text.replace("tasks.helper", "tasks.deep.halves").replace("helper.half", "halves.half")
    (package / "tasks" / "a.py").write_text(text.replace("tasks.deep.halves.half", "halves.half"))
    assert digest(package) == before


def test_function_of_the_same_name_from_another_module_changes_the_digest(package):
    (package / "tasks" / "other.py").write_text("def half(x):\n    return x / 2\n")
    text = "from tasks import {}\nfrom tasks.{} import half\n\ndef run():\n    return half(4)\n"
    (package / "tasks" / "a.py").write_text(text.format("other", "helper"))
    before = digest(package)
    (package / "tasks" / "a.py").write_text(text.format("helper", "other"))
    assert digest(package) != before


REGISTERED = "@register\ndef one():\n    return 1\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (REGISTERED, REGISTERED.replace("one", "two")),
        ("LIMIT = 4\n", "def at_most(x, limit=LIMIT):\n    return min(x, limit)\n"),
        ("LIMIT = 4\n", "LIMIT = 5\n"),
        ("class One:\n    x: int = 1\n", "class Two(One):\n    y: int = 2\n"),
    ],
)
def test_order_of_definitions_changes_the_digest(package, first, second):
    path = package / "tasks" / "helper.py"
    rest = path.read_text()
    path.write_text(first + second + rest)
    before = digest(package)
    path.write_text(second + first + rest)
    assert digest(package) != before


STATEMENTS = ["LIMIT = 4", "LIMIT = 5", "OTHER = 1", *(f"def f{n}(x=LIMIT): pass" for n in "ab")]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(STATEMENTS), st.sampled_from(range(5)), st.sampled_from(range(5)))
def test_moving_any_statement_or_definition_changes_the_digest(package, lines, old, new):
    moved = list(lines)
    moved.insert(new, moved.pop(old))
    (package / "tasks" / "a.py").write_text("from tasks.other import fa as run\n")
    found = []
    for order in (lines, moved):
        (package / "tasks" / "other.py").write_text("\n".join(order))
        found.append(digest(package))
    assert (found[0] == found[1]) == (lines == moved)


def test_statement_that_moves_over_a_definition_changes_the_digest(package):
    path, found = package / "tasks" / "helper.py", []
    rest = path.read_text()
    for text in (
        "LIMIT = 5\ndef at_most(x=LIMIT): pass\n",
        "def at_most(x=LIMIT): pass\nLIMIT = 5\n",
    ):
        path.write_text(f"LIMIT = 4\n{text}OTHER = 1\n{rest}")
        found.append(digest(package))
    assert found[0] != found[1]


def test_order_of_imports_does_not(package):
    path = package / "tasks" / "helper.py"
    rest = path.read_text()
    path.write_text("import ast\nimport os\nfrom tasks.other import unrelated\n" + rest)
    before = digest(package)
    path.write_text("from tasks.other import unrelated\nimport os\nimport ast\n" + rest)
    assert digest(package) == before


def move_helper(package):
    (package / "tasks" / "helper.py").rename(package / "tasks" / "halves.py")
    edit(package, "a", "tasks.helper", "tasks.halves")


def test_moved_module_is_no_cause(package):
    before = closure("tasks.a:run", DigestCache(None), package)
    move_helper(package)
    assert _changed_code(before, closure("tasks.a:run", DigestCache(None), package)) == []


def test_moved_and_edited_module_is_named_under_both_names(package):
    before = closure("tasks.a:run", DigestCache(None), package)
    move_helper(package)
    edit(package, "halves", "LIMIT = 3", "LIMIT = 4")
    causes = _changed_code(before, closure("tasks.a:run", DigestCache(None), package))
    assert {cause.what for cause in causes} == {"tasks/halves.py", "tasks/helper.py"}


@pytest.fixture
def page(package):
    """A data file in a subfolder, which is no package, of the package that `a` imports from."""
    folder = package / "tasks" / "report"
    (folder / "templates").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "page.py").write_text("def write():\n    return 1\n")
    (package / "tasks" / "a.py").write_text("from tasks.report.page import write\n")
    path = folder / "templates" / "page.html"
    path.write_text("<p>")
    return path


def test_content_and_name_of_a_data_file_of_an_imported_package_count(package, page):
    digests = {digest(package)}
    page.write_text("<b>")
    digests.add(digest(package))
    page = page.rename(page.with_name("table.html"))
    digests.add(digest(package))
    page.unlink()
    digests.add(digest(package))
    assert len(digests) == 4


def test_data_file_that_changed_is_named(package, page):
    before = closure("tasks.a:run", DigestCache(None), package)
    page.write_text("<b>")
    (cause,) = _changed_code(before, closure("tasks.a:run", DigestCache(None), package))
    assert cause.detail == "<templates/page.html>"


def test_renamed_package_with_data_files_keeps_the_digest(package, page):
    before = digest(package)
    (package / "tasks" / "report").rename(package / "tasks" / "pages")
    edit(package, "a", "tasks.report", "tasks.pages")
    assert digest(package) == before


def test_hidden_files_bytecode_and_files_of_other_packages_do_not_count(package, page):
    before = digest(package)
    page.with_name(".page.html.swp").write_text("x")
    (page.parents[1] / "__pycache__").mkdir()
    (page.parents[1] / "__pycache__" / "page.cpython-311.opt").write_text("x")
    (page.parents[1] / "other").mkdir()
    (page.parents[1] / "other" / "__init__.py").write_text("")
    (page.parents[1] / "other" / "data.json").write_text("{}")
    assert digest(package) == before


def test_changed_report_template_changes_the_code_of_evaluate_alone(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(tasks.__file__).parent, tmp_path / "tasks", ignore=ignored)

    def digests():
        return {s.name: code_digest(closure(s.run, DigestCache(None), tmp_path)) for s in PIPELINE}

    before = digests()
    template = tmp_path / "tasks/evaluation/report/templates/report.css"
    template.write_text(template.read_text() + "p { margin: 0; }\n")
    after = digests()
    assert [name for name in before if before[name] != after[name]] == ["evaluate"]
