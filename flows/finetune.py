"""The flow: ingest, filter, format, tokenize, train, evaluate, merge - and only what changed.

Started by `finetune run`, by `prefect deployment run finetune/local-gpu` and by the schedule of
`finetune/nightly`.
"""

from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.orchestration.run_stages import opened
from flows.orchestration.superseded import refused, superseded
from flows.session import Request
from tasks.core.cache.plan import Selection
from tasks.core.errors import PipelineError

StageName = Literal["base", "ingest", "filter", "prompt", "tokenize", "train", "evaluate", "merge"]


def run_name() -> str:
    """The profile's name and what was asked of it, such as "cpu_demo · only evaluate"."""
    asked = flow_run.parameters
    parts = [Path(str(asked.get("profile"))).stem]
    parts += [f"only {', '.join(asked['only'])}"] if asked.get("only") else []
    parts += [f"from {asked['start_from']}"] if asked.get("start_from") else []
    parts += [f"again {', '.join(asked['force'])}"] if asked.get("force") else []
    return " · ".join(parts)


@flow(name="finetune", flow_run_name=run_name, persist_result=False)
def finetune(
    profile: str = "stable_code_3b_10gb",
    overrides: list[str] | None = None,
    only: list[StageName] | None = None,
    start_from: StageName | None = None,
    force: list[StageName] | None = None,
) -> dict[str, str] | State[dict[str, str]]:
    """Fine-tune a code model with 4-bit LoRA; stages whose inputs did not change are not run again.

    Args:
        profile: Name of a profile (`finetune profiles` lists them) or path of a YAML file.
        overrides: Settings that differ from the profile, "section.field=value" each.
        only: Consider these stages and no others; what they rest on must be there.
        start_from: Consider this stage and all after it.
        force: Run these stages even if nothing changed.

    Returns:
        Folder of each stage's artifact; in a run of a deployment that gives way, finds nothing
        to do or is refused, a state that says so.
    """
    if (gives_way := superseded()) is not None:
        return gives_way
    selection = Selection(tuple(only or ()), start_from, tuple(force or ()))
    try:
        with opened(Request(profile, tuple(overrides or ()), selection)) as stage:
            stage("base")  # hub id, folder or GGUF file -> safetensors and tokenizer
            stage("ingest")  # files, packages, source trees -> rows
            stage("filter")  # rows -> kept and rejected, with every reason
            stage("prompt")  # kept rows -> prompt and completion, split by project
            stage("tokenize")  # text -> token ids, label mask, packed windows
            stage("train")  # 4-bit base + LoRA on the windows -> adapter
            stage("evaluate")  # base and tuned side by side -> metrics, verdict, report
            stage("merge")  # adapter into a 16-bit base, checked against it
            stage.promote_improvement()  # where the deployment is there for that
            return stage.ending()
    except PipelineError as error:
        return refused(error)
