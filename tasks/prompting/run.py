"""Stage `prompt`: kept rows -> train.parquet, validation.parquet, test.parquet and problems.jsonl.

Ids and projects are read first and every row gets its split; then the texts are formatted a batch
at a time, so memory does not grow with the length of the texts.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tasks.core.errors import PipelineError
from tasks.core.settings.config import View
from tasks.core.stage import Summary, Work
from tasks.core.text.prompt_templates import PromptTemplate
from tasks.prompting.decontaminate import rows_with_problems, write_hits
from tasks.prompting.format_prompts import PromptFormatter
from tasks.prompting.problems import choose_problems, write_problems
from tasks.prompting.split import SPLITS, RowSplits


def run(config: View, inputs: Mapping[str, Path], work: Work) -> Summary:
    """Split the rows, hold problems out and format the rest.

    Raises:
        PipelineError: There are no rows, or a split has no project.
    """
    settings = config.prompt
    kept = inputs["filter.kept"]
    splits, problems = _split(config, kept, inputs["ingest.executable"], work)
    template = PromptTemplate(settings.template, settings.system, settings.date)
    formatter = PromptFormatter(template, settings.fim_rate, settings.seed)
    formatter.write(kept, splits.numbers, work.out)
    rows = splits.rows()
    held_out = f"; {problems:,} problems" if problems else ""
    return Summary(
        ", ".join(f"{rows[name]:,} {name}" for name in SPLITS)
        + f" rows of {sum(splits.projects.values()):,} projects{held_out}",
        rows_in=len(splits.numbers),
        rows_out=sum(rows.values()),
        counts=splits.dropped,
        metrics={f"{name}_rows": rows[name] for name in SPLITS}
        | {f"{name}_projects": splits.projects[name] for name in SPLITS}
        | {"problems": problems}
        | ({"infilling_rows": formatter.infilled} if settings.fim_rate else {}),
    )


def _split(config: View, kept: Path, executable: Path, work: Work) -> tuple[RowSplits, int]:
    """The split of every row and the number of problems; writes the problems and the hits.

    The order matters: problems are chosen after clusters are separated, so that none of them has a
    near duplicate in another split, and caps count only rows that nothing else drops.
    """
    settings = config.prompt
    names = pq.read_table(kept, columns=["row_id", "project", "cluster"])
    if not names.num_rows:
        raise PipelineError(
            "there are no rows to make prompts of", "Check what the stages ingest and filter kept."
        )
    splits = RowSplits.by_project(
        names.column("project"), settings.validation_share, settings.test_share, settings.seed
    )
    clusters = names.column("cluster").combine_chunks().dictionary_encode().indices.to_numpy()
    splits.separate(clusters)
    ids = names.column("row_id").to_pylist()
    by_id = {i: SPLITS[n] for i, n in zip(ids, splits.numbers.tolist(), strict=True) if n >= 0}
    problems = choose_problems(executable, by_id, settings.max_problems, settings.seed)
    splits.hold_out(ids, clusters, {problem["row_id"] for problem in problems})
    write_problems(work.out / "problems.jsonl", problems)
    limits = config.filter.decontamination
    remaining = splits.numbers >= 0
    hits = rows_with_problems(kept, remaining, problems, limits, work, config.hardware.workers)
    splits.drop(np.isin(np.arange(len(ids)), list(hits)), "holds_a_problem")
    write_hits(work.out / "contaminated.jsonl", ids, hits)
    caps = (settings.max_train_rows, settings.max_held_out_rows, settings.max_held_out_rows)
    splits.cap(ids, caps, settings.seed)
    return splits, len(problems)
