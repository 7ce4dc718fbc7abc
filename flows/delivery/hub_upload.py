"""Uploads a bundle to the Hugging Face hub, into a private repository by default."""

import json
import re
from typing import Any

from flows.delivery.bundle import bundle_files
from flows.delivery.delivered_model import DeliveredModel
from tasks.core.errors import PipelineError
from tasks.core.system.escape_text import first_line
from tasks.core.system.retry import is_temporary

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def check_repository_name(name: str) -> None:
    """Check the form of a name, before anything is promoted.

    Raises:
        PipelineError: It is not ORG/NAME.
    """
    if not REPOSITORY.fullmatch(name):
        raise PipelineError(
            f"{name!r} is not a valid repository name of the hub", "Give it as ORG/NAME."
        )


def check_licences(model: DeliveredModel, public: bool) -> None:
    """Check that the licenses allow distributing the model.

    Raises:
        PipelineError: The base model's license is unknown, or, for a public repository, that of
            some training rows.
    """
    licence = _json(model.licence)
    if not licence.get("licence"):
        raise PipelineError(
            "the license of the base model is unknown, and the merged weights inherit it",
            "Look it up, set base.licence to its SPDX name, then run and promote again.",
        )
    if not public:
        return
    card = _json(model.data_card)
    rows = {str(name): int(count) for name, count in card.get("licences", ())}
    if not rows or rows.get(""):
        unknown, total = rows.get("", 0), sum(rows.values())
        raise PipelineError(
            f"the license of {unknown:,} of {total:,} training rows is unknown",
            "Set `licence` of their sources in ingest.sources, or leave --public out: a private "
            "repository is for your own use.",
        )


def push(model: DeliveredModel, name: str, public: bool) -> str:
    """Upload a bundle as one commit; returns the commit's address.

    Raises:
        PipelineError: The licenses don't allow it, there is no login, the repository is public and
            must not be, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    check_licences(model, public)
    files = bundle_files(model, name.rpartition("/")[2].lower())
    api = HfApi()
    try:
        api.create_repo(name, private=not public, exist_ok=True)
        if not public and not api.model_info(name).private:
            raise PipelineError(
                f"{name} exists on the hub and is public",
                "Choose another name, make it private there, or add --public.",
            )
        operations = [CommitOperationAdd(path, source) for path, source in files.items()]
        message = f"{model.name}, {len(files)} files"
        commit = api.create_commit(name, operations, commit_message=message)
    except LocalTokenNotFoundError as error:
        raise PipelineError("you are not logged in to the hub", "Run `hf auth login`.") from error
    except PipelineError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        remedy = "Try again later: nothing was published."
        if status in (401, 403):
            remedy = f"Run `hf auth login` with a token that may write to {name}."
        raise PipelineError(f"the hub refuses {name}: {first_line(error)}", remedy) from error
    except Exception as error:  # errors of the network have no common class
        if not is_temporary(error):
            raise
        raise PipelineError(
            f"the hub can't be reached: {first_line(error)}", "Check the network and try again."
        ) from error
    return str(commit.commit_url)


def _json(path: Any) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path is not None else {}
