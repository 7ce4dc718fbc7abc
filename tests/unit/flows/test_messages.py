"""What the command line tells of real stages after real changes: plan, explain, diff."""

import json
from pathlib import Path

import pytest

from flows import messages
from flows.cli import main
from flows.session import Request, open_session
from tasks.core.artifacts import runs
from tasks.core.artifacts.runs import RunRecord
from tasks.core.cache import code_digest
from tasks.core.cache.decision import HIT, Selection
from tasks.core.cache.execute import RunContext, execute

STAGES = ("ingest", "filter")
ROWS = [
    {"instruction": f"Add {n} to a number", "output": f"def add_{n}(x):\n    return x + {n}\n"}
    for n in range(12)
]


class Home:
    """A home with one file of rows; runs its first stages as the flow does, without Prefect."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.rows = folder / "rows.jsonl"
        self.profile = folder / "mine.yaml"
        source = f"{{kind: files, name: mine, path: {self.rows}, licence: MIT}}"
        self.profile.write_text(f"base: {{path: {model}}}\ningest: {{sources: [{source}]}}\n")
        self.write(ROWS)

    def write(self, rows) -> None:
        self.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, *only: str, overrides: tuple[str, ...] = ()) -> None:
        request = Request(str(self.profile), overrides, Selection(only or STAGES))
        with open_session(request) as session:
            root = session.store.root
            record = RunRecord(runs.new_id(root), "mine", overrides)
            for name in session.planner.selected:
                plan = session.planner.plan_stage(name)
                made = plan.manifest
                if plan.decision != HIT:
                    made = execute(
                        plan,
                        RunContext(session.config, session.store, session.planner.artifacts),
                    )
                session.planner.add_artifact(made)
                record = record.with_key(name, made.key)
            record.write(root)


@pytest.fixture
def home(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    return Home(tmp_path, tiny_model)


def told(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) in (0, 10)
    return capsys.readouterr().out


def line_of(out: str, stage: str) -> str:
    return next(line for line in out.splitlines() if line.startswith(stage))


def test_new_rows_are_told_by_file_then_by_number(home, capsys):
    home.run()
    home.write([*ROWS[1:], {"instruction": "Say hello", "output": "print('hello')\n"}])
    options = ["plan", "--profile", str(home.profile)]
    assert "data mine (changed: rows.jsonl)" in line_of(told(capsys, *options), "ingest")
    home.run("ingest")
    assert "data ingest.rows (1 row added, 1 row removed)" in line_of(
        told(capsys, *options), "filter"
    )
    explained = told(capsys, "explain", "filter", "--profile", str(home.profile))
    assert "data ingest.rows (1 row added, 1 row removed) " in explained


def test_diff_names_the_setting_the_rows_and_what_moved_with_them(home, capsys):
    home.run()
    home.write(ROWS[:8])
    home.run(overrides=("filter.max_lines=99",))
    out = told(capsys, "diff", "-2", "-1")
    assert "ingest    data mine (changed: rows.jsonl)" in out
    assert "ingest    rows_out 12 -> 8" in out
    assert "filter    data ingest.rows (4 rows removed)" in out
    assert "filter    config filter.max_lines 100000 -> 99" in out


def test_changed_code_is_told_by_module_and_all_functions(home, capsys, monkeypatch):
    home.run()
    real = code_digest.closure

    def changed(reference, digests, **_):
        found = real(reference, digests)
        rules = dict(found.get("tasks.filtering.rules.line_length", {}))
        return found | (
            {"tasks.filtering.rules.line_length": {**rules, **dict.fromkeys("abcde", "x")}}
            if rules
            else {}
        )

    monkeypatch.setattr("tasks.core.cache.cache_key.closure", changed)
    plan = told(capsys, "plan", "--profile", str(home.profile))
    assert "code tasks/filtering/rules/line_length.py (a, b, c, ...)" in line_of(plan, "filter")
    assert "code" not in line_of(plan, "ingest")
    explained = told(capsys, "explain", "filter", "--profile", str(home.profile))
    assert "code tasks/filtering/rules/line_length.py (a, b, c, d, e)" in explained


def test_changed_package_is_told_with_both_versions(home, capsys, monkeypatch):
    from tasks.core.cache import cache_key

    home.run()
    real = cache_key.version
    monkeypatch.setattr(cache_key, "version", lambda name: "99" if name == "numpy" else real(name))
    plan = told(capsys, "plan", "--profile", str(home.profile))
    assert f"env numpy {real('numpy')} -> 99" in line_of(plan, "filter")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("base_token_accuracy", 0.5861, ("base token accuracy", "58.6 %")),
        ("tuned_loss", 1.84668, ("tuned loss", "1.847 nats")),
        ("peak_vram_gib", 6.8, ("peak VRAM", "6.8 GiB")),
        ("train_rows", 12345, ("train rows", "12,345")),
    ],
)
def test_a_metric_is_written_with_its_unit(
    name: str, value: float, expected: tuple[str, str]
) -> None:
    assert messages.metric(name, value) == expected
