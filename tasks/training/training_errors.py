"""The errors that end a training, each with what to do about it."""

from tasks.core.errors import PipelineError, StopError


def stopped(step: int, total: int) -> StopError:
    """The error of a run that was asked to stop, after its checkpoint."""
    return StopError(
        f"training was stopped at step {step} of {total}", "Run again: it goes on from this step."
    )


def not_finite(step: int, loss: float, grad_norm: float) -> PipelineError:
    """The error of a run that diverged."""
    return PipelineError(
        f"training diverged at step {step}: loss {loss}, gradient norm {grad_norm}",
        "Lower train.learning_rate or lengthen train.warmup_steps; the adapter was not published.",
    )


def all_masked(tokens: int) -> PipelineError:
    """The error of data without a single trained token."""
    return PipelineError(
        f"all labels are masked: 0 of {tokens:,} tokens are trained",
        "Check that completions are not empty and that tokenize.max_tokens leaves room for them.",
    )


def out_of_memory(vram_gib: float | None) -> PipelineError:
    """The error of a GPU that is too small for the longest window."""
    limit = "all of the GPU's memory" if vram_gib is None else f"{vram_gib:g} GiB"
    return PipelineError(
        f"training needs more than {limit}",
        "Lower tokenize.max_tokens, set train.offload_activations to true, or raise "
        "hardware.vram_gib; a checkpoint that was written is taken up again.",
    )
