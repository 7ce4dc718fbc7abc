"""The datatrove side of `compare`, for the Python of an environment with datatrove.

    python -m benchmarks.data.datatrove_run rows FOLDER | tokens FOLDER TOKENIZER

`rows`: five rules about text and one about syntax, then MinHash duplicates (word 5-grams, 42 bands
of 6), with two tasks and two workers. `tokens`: texts to token files, with the same tokenizer.
Prints seconds and memory as JSON.
"""

import ast
import json
import resource
import sys
import time
import warnings
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.logging import logger

WORKERS = 2
CONFIG = MinhashConfig(n_grams=5, num_buckets=42, hashes_per_bucket=6)


def passes(document):
    """Rules: lines, line lengths, share of letters, syntax."""
    text = document.text
    lines = text.splitlines() or [""]
    if len(lines) > 100_000 or sum(map(len, lines)) / len(lines) > 100:
        return False
    if max(map(len, lines)) > 1_000 or sum(map(str.isalpha, text)) < 0.25 * len(text):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(document.metadata["code"])
        except (SyntaxError, ValueError, RecursionError):
            return False
    return True


def run(steps, name, folder, tasks=WORKERS):
    """One pipeline of datatrove."""
    logs = str(folder / "logs" / name)
    LocalPipelineExecutor(
        steps, tasks=tasks, workers=WORKERS, logging_dir=logs, start_method="fork"
    ).run()


def rows(folder):
    """Filter and remove duplicates."""
    at = {n: str(folder / n) for n in ("given", "passed", "signed", "buckets", "clusters", "kept")}
    run(
        [ParquetReader(at["given"]), LambdaFilter(passes), ParquetWriter(at["passed"])], "1", folder
    )
    run([ParquetReader(at["passed"]), MinhashDedupSignature(at["signed"], CONFIG)], "2", folder)
    buckets = [MinhashDedupBuckets(at["signed"], at["buckets"], config=CONFIG)]
    run(buckets, "3", folder, CONFIG.num_buckets)
    run([MinhashDedupCluster(at["buckets"], at["clusters"], CONFIG)], "4", folder, 1)
    last = [MinhashDedupFilter(at["clusters"]), ParquetWriter(at["kept"])]
    run([ParquetReader(at["passed"]), *last], "5", folder)


def tokens(folder, tokenizer):
    """Tokenize."""
    made = DocumentTokenizer(str(folder / "tokens"), tokenizer, eos_token="<|endoftext|>")
    run([ParquetReader(str(folder / "texts")), made], "6", folder)


def main():
    """Run the pipeline and print the measurements."""
    logger.remove()
    what, folder = sys.argv[1], Path(sys.argv[2])
    start = time.perf_counter()
    if what == "rows":
        rows(folder)
    else:
        tokens(folder, sys.argv[3])
    seconds = time.perf_counter() - start
    own, others = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    mib = max(own.ru_maxrss, others.ru_maxrss) / 1024
    cpu = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mib": mib}))


if __name__ == "__main__":
    main()
