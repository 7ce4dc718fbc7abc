"""Declaration of a stage, from which plan, Prefect task and command line are derived.

A stage is a frozen value, not a class to inherit from. Its `run` is named by reference
("package.module:function"), so that declaring a pipeline imports no heavy library: `finetune plan`
needs neither torch nor pyarrow, and a worker process that scores rows needs no settings.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.system.parallel import ordered_map

if TYPE_CHECKING:
    from tasks.core.settings.config import Config, View

RunBatches = Callable[[Callable[[Any], Any], Iterable[Any], int], Iterator[Any]]

CHAMPION = "champion:"  # before the name of an input that is an output of the champion's artifacts


@dataclass(frozen=True)
class Work:
    """Where a running stage may write.

    Attributes:
        out: Empty folder; its content when `run` returns is published. An entry `kept.parquet` or
            `kept/` is the output named `kept`; entries that the stage does not declare as outputs
            (pictures, logs) are kept next to them and enter no key.
        scratch: Folder that survives a kill and is reused by a run with the same key only
            (checkpoints); removed after publishing.
        shards: Folder of values of single rows that persist across runs (see
            `tasks.core.rows.row_cache`); None: not stored.
        code: Digest of the stage's code and of the packages that can change its output.
        run_batches: How a pure function is run over batches, with the results in their order:
            `run_batches(function, batches, workers)`.
        memory: Cache folder that all runs share, whatever their key, for expensive results such as
            a model's completions. A file is named by the first 12 digits of the digest of the
            output that it belongs to, and is removed with it; None: nothing is cached. A cached
            result must never change an output.
        profile: Name or file of the run's profile, for reports; must never change an output.
    """

    out: Path
    scratch: Path
    shards: Path | None = None
    code: str = ""
    run_batches: RunBatches = ordered_map
    memory: Path | None = None
    profile: str = ""


@dataclass(frozen=True)
class Summary:
    """Summary of a stage's run, stored in the manifest.

    Attributes:
        line: One short phrase for the terminal, such as "12,480 of 18,002 rows kept".
        rows_in: Rows read; None where the stage has no rows.
        rows_out: Rows written.
        counts: Everything dropped, skipped or truncated, by name.
        metrics: Measured values by name (loss, tokens per second, peak_vram_gib ...).
    """

    line: str
    rows_in: int | None = None
    rows_out: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


Inputs = Mapping[str, Path]
Run = Callable[["View", Inputs, Work], Summary]
Sources = Callable[["View", Callable[[Path], str]], dict[str, str]]


@dataclass(frozen=True)
class StageOption:
    """Extension of a stage by a setting. While the setting is off, none of this is in its key.

    Attributes:
        setting: "section.field", which the stage reads.
        run: Replaces the stage's `run`, which it may call.
        inputs: More inputs.
        env: More packages.
        gpu: Takes the lock of the GPU.
    """

    setting: str
    run: str
    inputs: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    gpu: bool = False


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: A verb (`filter`); also the folder under artifacts/.
        run: "module:function" with signature `run(config, inputs, work) -> Summary`, the only
            function of the stage that touches disk or settings.
        outputs: Names of the outputs that other stages may read.
        inputs: Outputs that it reads, as "stage.output"; their digests enter the key.
        shows: Outputs or extras of other stages that it only displays; they never make it run
            again.
        warm_start: Outputs of the champion's artifacts that it starts from, if its setting `start`
            selects them; see `tasks.core.cache.warm_start`.
        reads: Sections ("filter") or single fields ("prompt.template") of the settings that it
            reads.
        env: Packages whose version can change its output.
        sources: "module:function" with signature `(config, digest_of) -> {name: digest}` for input
            from outside the store, keyed by content; must import nothing heavy.
        gpu: Takes the lock of the GPU while it runs.
        schema: Raise it when the layout of the outputs changes.
        options: What settings add to it.
    """

    name: str
    run: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    warm_start: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    sources: str | None = None
    gpu: bool = False
    schema: int = 1
    options: tuple[StageOption, ...] = ()

    def with_options(self, config: "Config") -> "Stage":
        """The stage with the options whose settings are on."""
        stage = self
        for option in self.options:
            if not attrgetter(option.setting)(config):
                continue
            stage = replace(
                stage,
                run=option.run,
                inputs=(*stage.inputs, *option.inputs),
                env=(*stage.env, *option.env),
                gpu=stage.gpu or option.gpu,
            )
        return stage

    def load_run(self) -> Run:
        """Import and return the stage's `run`; this is what pulls in its heavy libraries."""
        return resolve(self.run)  # type: ignore[no-any-return]  # named by a string

    def load_sources(self) -> Sources | None:
        """Import and return the stage's `sources`, or None."""
        return resolve(self.sources) if self.sources else None


def resolve(reference: str) -> Any:
    """The object that "package.module:name" refers to."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
