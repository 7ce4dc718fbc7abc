"""Stage `prompt`: kept rows -> train.parquet, validation.parquet, test.parquet and problems.jsonl;
split.json says how they were split.

Ids and projects are read first and every row gets its split; then the texts are formatted a batch
at a time, so memory does not grow with the length of the texts.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.errors import PipelineError
from tasks.core.rows.disk_arrays import mapped_table
from tasks.core.rows.split_unit import PROJECT, ROW, count_of, held_out_units, plural, split_words
from tasks.core.settings.config import View
from tasks.core.stage import Summary, Work
from tasks.core.text.prompt_templates import PromptTemplate
from tasks.prompting.decontaminate import rows_with_problems, write_hits
from tasks.prompting.format_prompts import PromptFormatter
from tasks.prompting.problems import choose_problems, write_problems
from tasks.prompting.split import OVER_CAP, SPLITS, RowSplits
from tasks.prompting.split_by_time import split_by_time
from tasks.prompting.units import COLUMNS, cluster_codes, is_one_of


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """Split the rows, hold problems out and format the rest.

    Raises:
        PipelineError: There are no rows, or too few for three splits.
    """
    settings = config.prompt
    kept = inputs["filter.kept"]
    splits, names, problems = _split(config, kept, inputs["ingest.executable"], work)
    unit, projects = splits.unit, _projects(names, splits)
    content = {"unit": unit, "units": splits.units, "projects": projects}
    (work.out / "split.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    template = PromptTemplate(settings.template, settings.system, settings.date)
    formatter = PromptFormatter(template, settings.fim_rate, settings.seed, settings.spm_share)
    formatter.write(kept, splits.numbers, splits.names, work.out)
    rows = splits.rows()
    held_out = f"; {problems:,} problems" if problems else ""
    own_unit = unit not in (PROJECT, ROW)
    tested = splits.test_units()
    smaller = {f"{name}_{plural(unit, 2)}": splits.units[name] for name in SPLITS if own_unit}
    return Summary(
        ", ".join(f"{rows[name]:,} {name}" for name in SPLITS)
        + f" rows{_origin(content)}{held_out_units(unit, tested)}{held_out}{_capped(splits)}",
        rows_in=len(splits.numbers),
        rows_out=sum(rows.values()),
        counts=splits.dropped,
        metrics={f"{name}_rows": rows[name] for name in SPLITS}
        | {f"{name}_projects": projects[name] for name in SPLITS}
        | smaller
        | {"problems": problems, "test_units": tested}
        | ({"repeated_rows": formatter.repeated} if formatter.repeated else {})
        | (
            {"infilling_rows": formatter.infilled}
            if formatter.infilled or settings.fim_rate
            else {}
        ),
    )


def _capped(splits: RowSplits) -> str:
    """How many rows the limits leave out, for the summary."""
    number = sum(n for reason, n in splits.dropped.items() if reason.startswith(OVER_CAP))
    limits = "prompt.max_train_rows and max_held_out_rows"
    return f"; {number:,} left out by {limits}" if number else ""


def _origin(split: Mapping[str, Any]) -> str:
    """How the rows were split, for the summary."""
    if split["unit"] == ROW:
        return ", split by row"
    if split["unit"] == PROJECT:
        return f" of {count_of(split['projects']['all'], PROJECT)}"
    return f", {split_words(split)}"


def _projects(names: pa.Table, splits: RowSplits) -> dict[str, int]:
    """Projects per split, and of all rows; 0 if no row names one."""
    column = names.column("project")
    if splits.unit in (PROJECT, ROW):
        return splits.units | {"all": sum(splits.units.values())}
    own = {
        name: pc.count_distinct(column.filter(pa.array(splits.numbers == number))).as_py()
        for number, name in enumerate(SPLITS)
    }
    is_named = not pc.all(pc.equal(column, names.column("row_id"))).as_py()
    return own | {"all": pc.count_distinct(column).as_py() if is_named else 0}


def _split(
    config: View, kept: Path, executable: Path, work: Work
) -> tuple[RowSplits, pa.Table, int]:
    """The split of every row, their names, and the number of problems; writes the problems and the
    hits.

    The order matters: problems are chosen after clusters are separated, so that none of them has a
    near duplicate in another split, and caps count only rows that nothing else drops.
    """
    settings = config.prompt
    names = mapped_table(kept, COLUMNS, work.scratch / "names.arrow")
    if not names.num_rows:
        raise PipelineError(
            "there are no rows to make prompts of", "Check what the stages ingest and filter kept."
        )
    shares = settings.validation_share, settings.test_share
    if settings.split == "time":
        splits = split_by_time(names, settings.split_date, *shares)
    else:
        splits = RowSplits.by_unit(
            names, settings.split, *shares, settings.seed, settings.min_test_units
        )
    clusters = cluster_codes(names)
    ids = names.column("row_id").combine_chunks()
    problems = _choose_problems(config, executable, splits, ids, clusters)
    splits.hold_out(ids, clusters, {problem["row_id"] for problem in problems})
    write_problems(work.out / "problems.jsonl", problems)
    limits = config.filter.decontamination
    remaining = splits.numbers >= 0
    hits = rows_with_problems(kept, remaining, problems, limits, work, config.hardware.workers)
    holds_one = np.zeros(len(ids), dtype=bool)
    holds_one[list(hits)] = True
    splits.drop(holds_one, "holds_a_problem")
    write_hits(work.out / "contaminated.jsonl", ids, hits)
    if empty := [name for name, number in splits.rows().items() if not number]:
        raise PipelineError(
            f"all rows of {' and '.join(empty)} hold one of {len(problems):,} held-out problems",
            "Set prompt.max_problems to 0.",
        )
    caps = (settings.max_train_rows, settings.max_held_out_rows, settings.max_held_out_rows)
    splits.cap(ids, caps, settings.seed)
    return splits, names, len(problems)


def _choose_problems(
    config: View,
    executable: Path,
    splits: RowSplits,
    ids: pa.Array,
    clusters: NDArray[np.int64],
) -> list[dict[str, Any]]:
    """Executable rows to hold out; a split whose rows would all be held out keeps a cluster."""
    settings = config.prompt
    passed = pq.read_table(executable, columns=["row_id"]).column("row_id").to_pylist()
    may_be_held_out = (splits.numbers >= 0) & is_one_of(ids, set(passed))
    while True:
        rows = np.flatnonzero(may_be_held_out)
        names = zip(ids.take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True)
        by_id = {row_id: SPLITS[splits.numbers[row]] for row_id, row in names}
        problems = choose_problems(executable, by_id, settings.max_problems, settings.seed)
        chosen = {problem["row_id"] for problem in problems}
        taken = np.unique(clusters[is_one_of(ids, chosen)])
        for number in range(len(SPLITS)):
            left = clusters[splits.numbers == number]
            if len(left) and np.isin(left, taken).all():
                may_be_held_out &= clusters != left[0]
                break
        else:
            return problems
