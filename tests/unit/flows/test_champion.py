"""Promotion on a store whose artifacts are made up: manifests are real, models are not there."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli import main
from flows.session import Request, open_session
from tasks.core.cache import manifest as manifests
from tasks.core.cache.manifest import Manifest
from tasks.core.stage import Summary
from tests.conftest import write_small_profile

ROWS = 40
SETTINGS = {"quantization": "nf4", "max_new_tokens": 8, "seed": 0}


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "home"))
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (model / name).write_text("{}")
    return write_small_profile(tmp_path / "small.yaml", model)


def make(profile, *overrides, verdict="improved", loss=2.0, passes=0, settings=None):
    """Publish artifacts of every stage as if the pipeline had run; the folder of `merge`."""
    with open_session(Request(str(profile), overrides)) as session:
        for stage in session.planner.selected:
            plan = session.planner.plan_stage(stage)
            with session.store.working(stage, plan.key, lambda: None) as work:
                for output in plan.stage.outputs:
                    (work.out / f"{output}.txt").write_text(f"{output} {plan.parts['config']}")
                if stage == "evaluate":
                    for output in plan.stage.outputs:
                        (work.out / f"{output}.txt").unlink()
                    given = settings or SETTINGS
                    measured(work.out, verdict=verdict, loss=loss, passes=passes, settings=given)
                files = manifests.describe_files(work.out)
                manifest = Manifest(
                    stage=stage,
                    key=plan.key,
                    parts=plan.parts,
                    outputs=manifests.output_digests(plan.stage.outputs, files),
                    files=files,
                    summary=dataclasses.asdict(Summary("made up", metrics={f"{stage}_loss": loss})),
                    seconds=1.0,
                )
                session.store.publish(manifest, work)
            session.planner.add_artifact(manifest)
        return session.store.folder("merge", manifest.key)


def measured(out, *, verdict, loss, passes, settings):
    gate = {"verdict": verdict, "reasons": [f"It is {verdict}."], "comparisons": []}
    (out / "gate.json").write_text(json.dumps(gate))
    (out / "metrics.json").write_text(json.dumps({"settings": settings}))
    table = [
        {
            "row_set": "held-out",
            "row_id": f"{i:032x}",
            "cluster": f"project {i}",
            "tokens": 10,
            "text_bytes": 30,
            "base_loss_sum": 30.0,
            "tuned_loss_sum": 10 * loss + i % 3,
            "base_correct": 1,
            "tuned_correct": 5,
            "ending_tokens": 1,
            "base_ending_loss_sum": 1.0,
            "tuned_ending_loss_sum": 0.5,
            "base_ending_correct": 0,
            "tuned_ending_correct": 1,
        }
        for i in range(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(table), out / "rows.parquet")
    texts = [
        {
            "suite": "humaneval",
            "problem_id": f"HumanEval/{i}",
            "style": "prompt",
            "model": model,
            "attempt": 0,
            "prompt": "def f():",
            "text": "",
            "tokens": 3,
            "stopped": True,
            "verdict": "pass" if model == "tuned" and i < passes else "wrong",
            "detail": "",
        }
        for i in range(30)
        for model in ("base", "tuned")
    ]
    pq.write_table(pa.Table.from_pylist(texts), out / "generations.parquet")


def promote(profile, *options, set_to=None):
    settings = ["--set", set_to] if set_to else []
    return main(["promote", "--profile", str(profile), *settings, *options])


def champion(capsys):
    capsys.readouterr()
    assert main(["champion", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


OTHER = "train.max_steps=5"


def test_improved_model_becomes_the_champion_with_its_whole_chain(profile, capsys):
    folder = make(profile)
    assert promote(profile) == 0
    link = folder.parents[1] / "champion"
    assert link.resolve() == folder
    entry = champion(capsys)["champion"]
    assert next(iter(entry["chain"])) == "base" and entry["chain"]["merge"] == entry["key"]
    assert len(entry["chain"]) == 8
    assert entry["verdicts"] == {"base": "improved"}
    assert entry["metrics"] == {"evaluate_loss": 2.0, "merge_loss": 2.0}
    assert entry["forced"] is False


def test_regressed_model_is_refused_with_two_lines(profile, capsys):
    make(profile, verdict="regressed")
    assert promote(profile, "--force", "--because", "mine") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: the model is worse than the base: It is regressed."
    assert len(lines) == 2
    assert champion(capsys)["champion"] is None


def test_inconclusive_model_takes_force_and_the_reason_is_recorded(profile, capsys):
    make(profile, verdict="inconclusive")
    assert promote(profile) == 2
    assert promote(profile, "--force") == 2
    assert promote(profile, "--force", "--because", "shorter answers") == 0
    entry = champion(capsys)["champion"]
    assert (entry["forced"], entry["why"]) == (True, "shorter answers")


def test_challenger_with_a_lower_loss_on_the_same_rows_replaces_the_champion(profile, capsys):
    make(profile, loss=2.0)
    folder = make(profile, OTHER, loss=1.5)
    assert promote(profile) == promote(profile, set_to=OTHER) == 0
    entry = champion(capsys)["champion"]
    assert entry["key"].startswith(folder.name)
    assert entry["verdicts"] == {"base": "improved", "champion": "improved"}
    assert "2.098 → 1.597" in entry["reasons"]["champion"][0]


def test_challenger_that_fails_problems_the_champion_solved_is_refused(profile, capsys):
    make(profile, passes=20)
    make(profile, OTHER, passes=2)
    assert promote(profile) == 0
    assert promote(profile, set_to=OTHER) == 2
    assert "against the champion regressed: pass@1" in capsys.readouterr().err


def test_challenger_as_good_as_the_champion_does_not_replace_it(profile, capsys):
    make(profile)
    make(profile, OTHER)
    assert promote(profile) == 0
    assert promote(profile, set_to=OTHER) == 2
    assert "against the champion inconclusive" in capsys.readouterr().err


def test_models_that_were_measured_otherwise_are_not_compared(profile, capsys):
    make(profile)
    make(profile, OTHER, loss=1.0, settings=SETTINGS | {"max_new_tokens": 9, "seed": 7})
    assert promote(profile) == 0
    assert promote(profile, set_to=OTHER) == 2
    assert "measured with other settings: max_new_tokens 8 and 9." in capsys.readouterr().err


def test_losses_are_not_compared_over_two_tokenizers(profile, capsys):
    make(profile)
    other = "base.licence=MIT"  # the made-up tokenizer holds the settings
    make(profile, other, loss=1.0)
    assert promote(profile) == 0
    assert promote(profile, set_to=other) == 2
    assert "oss on held-out" not in capsys.readouterr().err


def test_only_rows_that_both_measured_whole_are_compared():
    from tasks.evaluation.gate.stored_evaluations import join_rows

    row = {"row_set": "held-out", "tokens": 3, "cluster": "c", "text_bytes": 1}
    row |= {"tuned_loss_sum": 1.0, "tuned_correct": 1, "ending_tokens": 0}
    old = [row | {"row_id": name} for name in "ab"]  # measured before endings were apart
    row |= {"tuned_ending_loss_sum": 0.0, "tuned_ending_correct": 0}
    new = [row | {"row_id": "b"}, row | {"row_id": "c"}, row | {"row_id": "a", "tokens": 4}]
    assert [r.row_id for rows in join_rows(old, new) for r in rows.rows] == ["b"]


def test_rollback_is_one_command(profile, capsys):
    first = make(profile)
    make(profile, OTHER, loss=1.0)
    assert promote(profile) == promote(profile, set_to=OTHER) == 0
    assert main(["rollback", "--because", "users complain"]) == 0
    assert (first.parents[1] / "champion").resolve() == first
    told = champion(capsys)
    assert told["history"][-1]["why"] == "users complain"
    assert told["champion"]["verdicts"] == {"base": "improved"}


def test_settings_that_were_not_run_are_not_promoted(profile, capsys):
    make(profile)
    assert promote(profile, set_to=OTHER) == 2
    assert "stage train has no artifact for these settings" in capsys.readouterr().err


def test_gc_leaves_the_champion_and_what_it_rests_on(profile, capsys):
    folder = make(profile)
    other = make(profile, OTHER)
    assert promote(profile) == 0
    assert main(["gc", "--keep-last", "0", "--keep-days", "0"]) == 0
    assert folder.exists()
    assert not other.exists()
    assert main(["plan", "--profile", str(profile)]) == 0


def test_champion_tells_where_the_model_is_and_what_happened(profile, capsys):
    assert main(["champion"]) == 0
    assert "No model is promoted" in capsys.readouterr().out
    folder = make(profile)
    promote(profile, "--because", "first")
    capsys.readouterr()
    assert main(["champion"]) == 0
    out = capsys.readouterr().out
    assert f'merge/{folder.name}  improved over the base, "first"' in out
    assert "artifacts/champion/model" in out


def test_champion_whose_artifact_is_damaged_is_told_so(profile, capsys):
    folder = make(profile)
    promote(profile)
    (folder / "model.txt").unlink()
    assert main(["champion"]) == 0
    assert "DAMAGED: missing model.txt" in capsys.readouterr().out


def test_tables_of_a_real_evaluation_are_read_whole():
    """What `evaluate` writes has the columns that promotion joins."""
    from tasks.evaluation.gate.stored_evaluations import join_problems, join_rows
    from tasks.evaluation.report import files
    from tests.unit.evaluation import examples

    measured = examples.evaluation(tried=examples.problems(2, 1, 3, 4))
    rows, texts = files.row_records(measured), files.generation_records(measured)
    joined = join_rows(rows, rows)
    assert [(s.name, len(s.rows), s.probe) for s in joined] == [
        (s.name, len(s.rows), s.probe) for s in measured.row_sets
    ]
    assert all(row.base_loss_sum == row.tuned_loss_sum for s in joined for row in s.rows)
    assert len(join_problems(texts, texts)) == len(measured.problems) > 0
