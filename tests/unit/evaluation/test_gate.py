import json
import re
from dataclasses import replace
from itertools import chain

import pytest

from tasks.core.rows.data_card import Split
from tasks.evaluation.gate import verdict as gate
from tasks.evaluation.gate import wording
from tasks.evaluation.metrics import summary
from tasks.evaluation.results import (
    Attempt,
    Evaluation,
    ProblemResult,
    RowSet,
)
from tests.unit.evaluation.examples import evaluation, problems, rows


def decide(found):
    return gate.decide(found, resamples=500)


def test_a_lower_held_out_loss_is_an_improvement():
    found = decide(evaluation(held_out=-0.3))
    assert found.verdict == "improved"
    assert "Loss on held-out is better" in found.reasons[0]


def test_no_difference_is_inconclusive():
    found = decide(evaluation(held_out=0.0))
    assert found.verdict == "inconclusive"
    assert found.reasons == ("No difference is larger than chance explains.",)


def test_forgetting_beyond_the_margin_is_a_regression_whatever_improved():
    found = decide(evaluation(held_out=-0.3, probe=0.2))
    assert found.verdict == "regressed"
    assert "untouched code" in found.reasons[0]
    assert re.search(r"more than the margin of 0\.01\d nats", found.reasons[0])


def test_forgetting_within_the_margin_is_no_regression():
    wide = gate.decide(evaluation(held_out=-0.3, probe=0.05), resamples=500, loss_margin_percent=20)
    assert wide.verdict == "inconclusive"  # better at home, surely worse elsewhere
    assert any("worse, within its margin" in reason for reason in wide.reasons)


def test_a_probe_that_gets_better_is_not_what_was_asked_for():
    assert decide(evaluation(held_out=0.0, probe=-0.3)).verdict == "inconclusive"


def test_pass_rate_falls_below_its_margin_only_with_its_whole_interval():
    assert decide(evaluation(0.0, tried=problems(0, 60, 60, 44))).verdict == "regressed"
    few = decide(evaluation(0.0, tried=problems(0, 2, 10, 8)))  # 10 points down, of 20 problems
    assert few.verdict == "inconclusive"


def test_a_token_accuracy_has_no_margin():
    margins = {c.name: c.margin for c in decide(evaluation(tried=problems(1, 1, 1, 1))).comparisons}
    assert margins["token accuracy"] is None
    assert margins["pass@1"] == 0.03


def test_the_family_is_corrected():
    found = decide(evaluation(0.0, tried=problems(won=6, lost=0, both=20, none=20)))
    passed = found.comparisons[-1]
    assert passed.p < 0.05 < passed.p_adjusted
    assert found.verdict == "inconclusive"


def test_the_note_says_what_can_be_detected():
    note = decide(evaluation(tried=problems(14, 10, 40, 100))).comparisons[-1].note
    assert note.startswith("humaneval (prompt): with 164 problems, 24 of them judged differently")
    assert re.search(r"only if it is at least \d+\.\d points\.$", note)


def test_too_few_projects_can_tell_nothing():
    for count, named in ((1, "1 project "), (3, "3 projects ")):
        found = decide(Evaluation((RowSet("held-out", rows(-0.3, projects=count)),)))
        assert found.verdict == "inconclusive"
        assert f"held-out: {named}can't show a difference" in found.reasons[-1]
        assert "at least 6 can" in found.reasons[-1]
        assert found.comparisons[0].low is None


def test_a_reason_that_several_metrics_share_is_given_once():
    found = decide(Evaluation((RowSet("held-out", rows(-0.3, projects=3)),)))
    assert len(found.reasons) == len(set(found.reasons))


def test_as_many_projects_as_the_reason_asks_for_can_tell():
    found = decide(Evaluation((RowSet("held-out", rows(-0.3, projects=6)),)))
    assert found.verdict == "improved"


def test_an_unclear_loss_says_what_it_could_find_and_how_many_projects_would_do():
    one = decide(Evaluation((RowSet("held-out", rows(-0.004, projects=8, each=2)),)))
    loss = one.comparisons[0]
    assert loss.outcome == "unclear"
    assert loss.detectable > abs(loss.difference)
    sizes = re.search(r"with 8 projects.* at least 0\.\d+ nats \((\d\.\d) %", loss.note)
    assert float(sizes[1]) == pytest.approx(100 * loss.detectable / loss.base, abs=0.06)
    enough = int(re.search(r"about ([\d,]+) projects would do", loss.note)[1].replace(",", ""))
    more = decide(Evaluation((RowSet("held-out", rows(-0.004, projects=2 * enough, each=2)),)))
    assert more.comparisons[0].outcome == "better"


def test_a_model_that_only_learned_to_end_its_answers_is_inconclusive():
    learned = tuple(
        replace(row, ending_tokens=4, base_ending_loss_sum=20.0, tuned_ending_loss_sum=0.1)
        for row in rows(0.0)
    )
    found = decide(Evaluation((RowSet("held-out", learned),)))
    assert found.verdict == "inconclusive"
    assert summary.metrics(Evaluation((RowSet("held-out", learned),)))["rows"]["held-out"]["tuned"][
        "ending_loss"
    ] == pytest.approx(0.1 / 4)


def test_of_many_sets_that_fell_by_chance_none_is_a_regression():
    def own(name, lost, won):
        return tuple(replace(p, suite=name) for p in problems(won, lost, 15, 15))

    worst = own("own-0", lost=11, won=1)
    assert decide(evaluation(0.0, tried=worst)).verdict == "regressed"
    others = [own(f"own-{i}", lost=3, won=3) for i in range(1, 10)]
    assert decide(evaluation(0.0, tried=(*worst, *chain(*others)))).verdict == "inconclusive"


def test_a_single_project_that_decides_is_named():
    calm = decide(Evaluation((RowSet("held-out", rows(-0.3)),)))
    assert calm.verdict == "improved"
    assert calm.warnings == ()
    others = rows(-0.05, projects=10)
    odd = tuple(
        replace(
            row,
            row_id=f"odd{i}",
            cluster="odd",
            tuned_loss_sum=2 * row.base_loss_sum,
            tuned_correct=0,
        )
        for i, row in enumerate(others[:10])
    )
    assert decide(Evaluation((RowSet("held-out", others),))).verdict == "improved"
    found = decide(Evaluation((RowSet("held-out", (*others, *odd)),)))
    assert found.verdict == "inconclusive"
    (warning,) = found.warnings
    assert re.search(r"without odd \(\d\d % of the tokens of held-out\) it is improved", warning)


def test_the_range_without_any_one_project_contains_the_difference():
    found = decide(Evaluation((RowSet("held-out", rows(-0.3)),)))
    (note,) = (note for note in found.notes if "with any one project left out" in note)
    low, high = (-float(value) for value in re.findall(r"−(0\.\d+) \(without project-\d+\)", note))
    assert low <= found.comparisons[0].difference <= high


def test_units_of_a_split_by_file_are_called_files_and_named_by_their_paths():
    names = {f"project-{n}": f"src/m{n}.py" for n in range(20)}
    splits = (Split("train", 1, 1, unit="file"),)
    sets = (RowSet("held-out", rows(-0.3)),)
    found = decide(Evaluation(sets, splits=splits, unit_names=names))
    (note,) = (note for note in found.notes if "left out" in note)
    assert "with any one file left out" in note and "(without src/m" in note
    assert {c.unit for c in found.comparisons} == {"files"}
    assert not any("project" in text for text in (*found.notes, *found.reasons))


def test_several_attempts_are_compared_by_their_share():
    def tried(passes):
        return tuple(Attempt("", 1, True, "pass" if i < passes else "wrong") for i in range(4))

    many = tuple(
        ProblemResult("own", str(i), "prompt", "", tried(i % 2), tried(2 + i % 2))
        for i in range(40)
    )
    passed = decide(evaluation(0.0, tried=many)).comparisons[-1]
    assert (passed.base, passed.tuned, passed.outcome) == (0.125, 0.625, "better")


def test_few_problems_with_several_attempts_claim_no_certainty():
    half = (Attempt("", 1, True, "pass"), Attempt("", 1, True, "wrong"))
    none = (Attempt("", 1, True, "wrong"),) * 2
    for before, value in ((none, 0.5), (half, 0.0)):
        few = tuple(ProblemResult("own", str(i), "prompt", "", before, half) for i in range(3))
        passed = decide(evaluation(0.0, tried=few)).comparisons[-1]
        assert passed.difference == value
        assert passed.low < 0 < passed.high
        assert (passed.outcome, passed.units) == ("unclear", 3)


def test_nothing_measured_is_inconclusive():
    assert decide(Evaluation(())).reasons == ("Nothing was measured.",)


def test_gate_json_is_strict_json_with_all_that_was_compared():
    found = decide(evaluation(tried=problems(3, 1, 4, 4)))
    raw = json.loads(json.dumps(gate.to_dict(found), allow_nan=False))
    assert (raw["verdict"], tuple(raw["reasons"])) == (found.verdict, found.reasons)
    assert [c["name"] for c in raw["comparisons"]] == [c.name for c in found.comparisons]


def test_the_same_evaluation_gives_the_same_bytes():
    texts = {json.dumps(gate.to_dict(decide(evaluation()))) for _ in range(2)}
    assert len(texts) == 1


def test_zero_is_shown_without_a_minus():
    c = replace(decide(evaluation()).comparisons[0])
    assert wording.shown_difference(c, -0.0001) == "+0.000"
    assert wording.shown_difference(c, -0.0126) == "−0.013"


def test_a_sure_gain_that_is_too_small_to_count_is_no_improvement():
    sure = gate.decide(
        evaluation(held_out=-0.3), resamples=500, min_loss_gain_percent=99, min_share_gain_points=99
    )
    assert sure.verdict == "inconclusive"
    assert "too little to count" in sure.reasons[0]
