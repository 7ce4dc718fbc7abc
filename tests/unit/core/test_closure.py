import textwrap

import pytest

from tasks.core.closure import closure
from tasks.core.keys import key_of
from tasks.core.memo import Memo


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
    return key_of({"code": closure("tasks.a:run", Memo(None), root)})


def edit(root, module, old, new):
    path = root / "tasks" / f"{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_helper_imported_inside_a_function_belongs_to_the_closure(package):
    assert "tasks.helper" in closure("tasks.a:run", Memo(None), package)


def test_module_that_is_not_imported_does_not(package):
    assert "tasks.other" not in closure("tasks.a:run", Memo(None), package)


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
    before = closure("tasks.a:run", Memo(None), package)["tasks.helper"]
    edit(package, "helper", "return x // 2", "return x // 3")
    after = closure("tasks.a:run", Memo(None), package)["tasks.helper"]
    assert [name for name in after if after[name] != before[name]] == ["half"]


def test_relative_import_is_followed(package):
    (package / "tasks" / "a.py").write_text(
        textwrap.dedent("from .helper import half\n\ndef run():\n    return half(4)\n")
    )
    assert "tasks.helper" in closure("tasks.a:run", Memo(None), package)


def test_module_that_a_process_is_started_with_belongs_to_the_closure(package):
    edit(package, "a", "return half(4)", 'return half(4), ["python", "-m", "tasks.other"]')
    assert "tasks.other" in closure("tasks.a:run", Memo(None), package)
