"""The machine: read by any stage, part of no key."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section
from tasks.core.system.quiet_hours import PATTERN


class HardwareSettings(Section):
    """What the run may use of this machine. No value here changes what a stage produces."""

    vram_gib: float | None = Field(
        None,
        gt=0,
        description="Memory budget on the GPU in GiB; the allocator is capped there. null: all.",
    )
    expandable_segments: bool = Field(
        True, description="Let the GPU allocator grow its segments, against fragmentation."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where models run; auto takes the GPU where there is one."
    )
    quiet_hours: str | None = Field(
        None,
        pattern=PATTERN,
        description='Local time in which the training stays away, such as "08:00-18:00": it waits '
        "before, and pauses at a checkpoint; null: none.",
    )
    wait_minutes: float = Field(
        720, ge=0, description="Minutes to wait for a GPU that is taken, and for vram_gib free."
    )
    stage_minutes: float | None = Field(
        None,
        gt=0,
        description="Minutes that one stage may take, waiting apart; training writes a checkpoint "
        "then. null: no limit.",
    )
    gpus: int = Field(
        1,
        ge=1,
        le=64,
        description="GPUs of this machine that train together, a process each, through "
        "Accelerate's launcher; with device cpu: processes.",
    )
    shard_base: bool = Field(
        False,
        description="Split the frozen base over the GPUs instead of a whole one on each (FSDP), "
        "for bases that do not fit one; slower, no fast path.",
    )
    workers: int = Field(
        0, ge=0, le=1024, description="Processes for the data stages; 0: one a core."
    )
    task_runner: Literal["processes", "ray", "dask"] = Field(
        "processes",
        description="What runs the batches of the data stages: processes of this machine, or Ray "
        "or Dask through Prefect (extras `ray` and `dask`), on a local cluster of `workers` "
        "processes or on `cluster`.",
    )
    cluster: str | None = Field(
        None,
        min_length=1,
        description="Address of a running Ray or Dask cluster whose machines have this project "
        "installed; null: a local one for each stage.",
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.shard_base and self.gpus == 1:
            raise ValueError(
                "shard_base is true and gpus is 1, so there is nobody to share the base with\n"
                "Set hardware.gpus to at least 2, or hardware.shard_base to false."
            )
        return self
