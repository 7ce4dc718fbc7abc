from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.rows.row_digests import row_digests
from tasks.core.rows.row_schema import REASON
from tasks.filtering.report.funnel import EXAMPLES, Funnel


def reason(rule: str, value: float = 2.0) -> dict[str, object]:
    return {"rule": rule, "value": value, "threshold": 1.0, "note": ""}


def add(funnel: Funnel, row_id: str, reasons: list[dict[str, Any]]) -> None:
    table = pa.table({"row_id": [row_id], "source": ["s"]})
    redactions = pa.chunked_array([[""]])
    draws = row_digests(table.select(["row_id"]))[:, 0]
    funnel.add_batch(table, pa.array([reasons], pa.list_(REASON)), redactions, draws)


def test_rows_that_only_one_rule_removes_are_told_apart() -> None:
    funnel = Funnel()
    for row_id, rules in {"1": ["a"], "2": ["a", "b"], "3": ["b"], "4": []}.items():
        add(funnel, row_id, [reason(rule) for rule in rules])
    told = {
        r["rule"]: (r["rows"], r["share"], r["only_this_rule"])
        for r in funnel.to_json(dict.fromkeys("abc", "x"))["reasons"]
    }
    assert told == {"a": (2, 0.5, 1), "b": (2, 0.5, 1), "c": (0, 0.0, 0)}


@given(st.permutations([str(n) for n in range(20)]))
def test_examples_do_not_depend_on_the_order(row_ids: list[str]) -> None:
    def draw(ids: list[str]) -> list[str]:
        funnel = Funnel()
        for row_id in ids:
            add(funnel, row_id, [reason("a")])
        return funnel.to_json({"a": "x"})["reasons"][0]["examples"]

    assert draw(row_ids) == draw(sorted(row_ids)) and len(draw(row_ids)) == EXAMPLES


def test_nearest_value_to_the_threshold_is_remembered() -> None:
    funnel = Funnel()
    for row_id, value in enumerate((9.0, 3.0, 5.0)):
        add(funnel, str(row_id), [reason("a", value)])
    assert funnel.nearest("a") == (3.0, 1.0)
