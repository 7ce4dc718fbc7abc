"""A file after other files of its repository, in the form that the base was pretrained on.

StarCoder2 and Qwen2.5-Coder have control tokens for the name of a repository and for the begin of a
file. For any other base a comment names each file, as in DeepSeek-Coder's pretraining data.

The stage that writes prompts has no tokenizer, so it writes placeholders (see `special_tokens`),
which the tokenizer of the base decides on: "repository:NAME" and "file:COMMENT:PATH", where COMMENT
begins a comment in the file's language.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

REPOSITORY, FILE = "repository:", "file:"


class RepositoryTokens(NamedTuple):
    """Control tokens of a pretraining format, and what follows the repository's name."""

    repository: str
    file: str
    after_name: str


FORMATS = (
    RepositoryTokens("<repo_name>", "<file_sep>", ""),  # StarCoder2, arXiv:2402.19173
    RepositoryTokens("<|repo_name|>", "<|file_sep|>", "\n"),  # Qwen2.5-Coder, arXiv:2409.12186
)


def repository_prompt(context: Mapping[str, Any]) -> str:
    """The text before the part of a file that is trained, with placeholders.

    Args:
        context: As the column `conversation` holds it, see `row_schema.ROWS`.
    """
    comment, name = context["comment"], context["repository"]
    heads = [(path, text) for path, text in context["files"]]
    heads.append((context["path"], context["before"]))
    parts = [f"\0{FILE}{comment}:{path}\0{text}" for path, text in heads]
    return "".join([f"\0{REPOSITORY}{name}\0", *parts])


def resolve(name: str, vocabulary: Mapping[str, int]) -> list[str | int] | None:
    """What a placeholder stands for; None if it is none of a repository.

    Args:
        name: Of the placeholder.
        vocabulary: Token -> id, of the base's tokenizer.
    """
    if not name.startswith((REPOSITORY, FILE)):
        return None
    known = (f for f in FORMATS if f.repository in vocabulary and f.file in vocabulary)
    tokens = next(known, None)
    if name.startswith(REPOSITORY):
        own = name.removeprefix(REPOSITORY)
        return [vocabulary[tokens.repository], own + tokens.after_name] if tokens else []
    _, comment, path = name.split(":", 2)
    return [vocabulary[tokens.file], f"{path}\n"] if tokens else [f"{comment} {path}\n"]


def readable(name: str) -> str:
    """A placeholder of a repository as [repository NAME] or [file PATH]; any other as it is."""
    if name.startswith(REPOSITORY):
        return f"[repository {name.removeprefix(REPOSITORY)}]"
    return f"[file {name.split(':', 2)[2]}]" if name.startswith(FILE) else name
