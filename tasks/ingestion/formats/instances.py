"""Records that hold several rows: an instruction and its instances, each with input and output, as
in Self-Instruct (`instruction`, `instances`) and Super-NaturalInstructions (`Definition`,
`Instances`); and a question with a list of solutions, all of which are good.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from tasks.ingestion.formats.columns import Values, decoded
from tasks.ingestion.formats.files.protocol import Open, Record, Records

INSTANCES, INSTRUCTION = "instances", "instruction"
NAMES = {INSTRUCTION: INSTRUCTION, "definition": INSTRUCTION}
SOLUTIONS = ("solutions", "answers", "outputs", "responses", "completions")
# columns with which a list holds more than good answers, or is none
JUDGED = frozenset(
    {
        *("output", "response", "answer", "solution", "completion", "chosen", "rejected", "code"),
        *("label", "labels", "score", "scores", "rank", "ranks", "rating", "ratings", "rewards"),
        *("correct", "correct_answer", "correct_index", "answer_index", "answer_idx", "gold"),
        *("target", "targets", "preference", "winner"),
    }
)
READ = {
    name
    for lower in (INSTANCES, *NAMES, *SOLUTIONS, "input", "output")
    for name in (lower, lower.capitalize())
}

Rows = Callable[[Values], Iterator[dict[str, Any]]]


def rows_inside(records: list[Values], may_guess: bool) -> Rows | None:
    """How the first records of a file become several rows each; None if they don't.

    Args:
        records: Of the file.
        may_guess: Whether the settings name no column of a text.
    """
    if any(map(_has_instances, records)):
        return _instances
    if may_guess and records and all(map(_solutions, records)):
        return _one_for_each_solution
    return None


def spread(records: Open, rows: Rows) -> Open:
    """A file whose records become several ones."""

    def opened(columns: Collection[str] | None) -> Records:
        for item in records(columns if columns is None else {*columns, *READ}):
            if isinstance(item, Record):
                yield from (Record(item.line, values) for values in rows(item.values))
            else:
                yield item

    return opened


def _lower(values: Values) -> Mapping[str, str]:
    return {str(name).lower(): name for name in values}


def _has_instances(values: Values) -> bool:
    """Whether a record is an instruction with instances."""
    names = _lower(values)
    found = values[names[INSTANCES]] if INSTANCES in names else None
    first = found[0] if isinstance(found, list) and found else None
    return isinstance(first, dict) and "output" in first and bool(NAMES.keys() & names.keys())


def _instances(values: Values) -> Iterator[dict[str, Any]]:
    """One record for each output of each instance, with the other fields of its record."""
    if not _has_instances(values):
        yield dict(values)
        return
    shared = {NAMES.get(str(name).lower(), str(name)): value for name, value in values.items()}
    instances = next(shared.pop(name) for name in list(shared) if name.lower() == INSTANCES)
    if isinstance(given := shared[INSTRUCTION], list) and all(isinstance(t, str) for t in given):
        shared[INSTRUCTION] = "\n".join(given)
    for one in instances:
        fields = dict(one) if isinstance(one, dict) else {"output": one}
        outputs = fields.get("output")
        for output in outputs if isinstance(outputs, list) and outputs else [outputs]:
            yield {**shared, **fields, "output": output}


def _solutions(values: Values) -> tuple[str, list[str]] | None:
    """Column and texts of a list of solutions; None without one."""
    names = _lower(values)
    column = next((names[name] for name in SOLUTIONS if name in names), None)
    texts = decoded(values[column]) if column is not None and not JUDGED & names.keys() else None
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        return None
    return str(column), texts


def _one_for_each_solution(values: Values) -> Iterator[dict[str, Any]]:
    found = _solutions(values)
    column, texts = found if found else ("", [None])
    for text in texts:
        yield {**{n: v for n, v in values.items() if n != column}, "output": text}
