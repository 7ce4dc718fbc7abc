"""Records that hold several rows: an instruction and its instances, each with input and output, as
in Self-Instruct (`instruction`, `instances`) and Super-NaturalInstructions (`Definition`,
`Instances`)."""

from collections.abc import Collection, Iterator
from typing import Any

from tasks.ingestion.formats.columns import Values
from tasks.ingestion.formats.files.protocol import Open, Record, Records

INSTANCES, INSTRUCTION = "instances", "instruction"
NAMES = {INSTRUCTION: INSTRUCTION, "definition": INSTRUCTION}
READ = {
    name for lower in (INSTANCES, *NAMES, "input", "output") for name in (lower, lower.capitalize())
}


def has_instances(values: Values) -> bool:
    """Whether a record is an instruction with instances."""
    lower = {str(name).lower(): value for name, value in values.items()}
    found = lower.get(INSTANCES)
    first = found[0] if isinstance(found, list) and found else None
    return isinstance(first, dict) and "output" in first and bool(NAMES.keys() & lower.keys())


def with_instances(records: Open) -> Open:
    """A file whose instances are records of their own, each with the other fields of its record."""

    def opened(columns: Collection[str] | None) -> Records:
        for item in records(columns if columns is None else {*columns, *READ}):
            if isinstance(item, Record) and has_instances(item.values):
                yield from (Record(item.line, values) for values in _rows(item.values))
            else:
                yield item

    return opened


def _rows(values: Values) -> Iterator[dict[str, Any]]:
    """One record for each output of each instance."""
    shared = {NAMES.get(str(n).lower(), str(n)): v for n, v in values.items()}
    instances = next(shared.pop(name) for name in list(shared) if name.lower() == INSTANCES)
    if isinstance(given := shared[INSTRUCTION], list) and all(isinstance(t, str) for t in given):
        shared[INSTRUCTION] = "\n".join(given)
    for one in instances:
        fields = dict(one) if isinstance(one, dict) else {"output": one}
        outputs = fields.get("output")
        for output in outputs if isinstance(outputs, list) and outputs else [outputs]:
            yield {**shared, **fields, "output": output}
