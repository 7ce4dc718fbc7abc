"""Settings of the machine: read by any stage, part of no cache key."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.core.settings.fields import Section
from tasks.core.system.quiet_hours import PATTERN


class HardwareSettings(Section):
    """Resources that a run may use. No value here changes the output of a stage."""

    vram_gib: float | None = Field(
        None,
        gt=0,
        description="GPU memory budget in GiB; the allocator is limited to it. null: all.",
    )
    expandable_segments: bool = Field(
        True, description="Use expandable segments in the GPU allocator: less fragmentation."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device of the models; auto uses the GPU if there is one."
    )
    quiet_hours: str | None = Field(
        None,
        pattern=PATTERN,
        description='Local hours, such as "08:00-18:00", in which no stage that runs a model '
        "starts, and a running training pauses at a checkpoint. null: none.",
    )
    wait_minutes: float = Field(
        720,
        ge=0,
        description="Maximum minutes to wait for a GPU in use, and until vram_gib are free.",
    )
    stage_minutes: float | None = Field(
        None,
        gt=0,
        description="Time limit of one stage in minutes, without waiting; a training writes a "
        "checkpoint before it stops. null: no limit.",
    )
    gpus: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of GPUs for data-parallel training, one process each, started by "
        "Accelerate; with device cpu: number of processes.",
    )
    shard_base: bool = Field(
        False,
        description="Shard the frozen base over the GPUs (FSDP) instead of a copy on each, "
        "for bases that do not fit on one; slower, without the fast path.",
    )
    workers: int = Field(
        0, ge=0, le=1024, description="Processes for the data stages; 0: one per core."
    )
    task_runner: Literal["processes", "ray", "dask"] = Field(
        "processes",
        description="Runs the batches of the data stages: local processes, or Ray or Dask through "
        "Prefect (extras `ray` and `dask`), on a local cluster of `workers` processes or on "
        "`cluster`.",
    )
    cluster: str | None = Field(
        None,
        min_length=1,
        description="Address of a Ray or Dask cluster whose machines have this project "
        "installed; null: a local one for each stage.",
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.shard_base and self.gpus == 1:
            raise ValueError(
                "shard_base is true and gpus is 1; sharding needs several GPUs\n"
                "Set hardware.gpus to at least 2, or hardware.shard_base to false."
            )
        return self
