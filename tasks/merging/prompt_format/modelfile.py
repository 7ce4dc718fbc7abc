"""The Modelfile of a GGUF file, from which `ollama create` makes a model that prompts as training.

Ollama has templates of its own, in Go's language, and applies none of a GGUF file that it doesn't
know. The template is therefore written from the turn layout.
"""

import json
from collections.abc import Sequence

from tasks.merging.prompt_format.turn_layout import TurnLayout

NOTE = """\
# The model's chat template can't be written as a template of Ollama. Send formatted prompts, with
# "raw": true.
"""


def modelfile(
    gguf: str,
    layout: TurnLayout | None,
    system: str,
    stop: Sequence[str],
    infilling: Sequence[str] | None,
) -> str:
    """The text of a Modelfile.

    Args:
        gguf: Name of the GGUF file beside it.
        layout: Of the chat template, without BOS, which Ollama adds; None if it has none.
        system: System text of conversations that have none; "" none.
        stop: Texts that end an answer.
        infilling: Names of the tokens before prefix, suffix and middle; of two, before suffix and
            prefix; None without.
    """
    parts = [f"FROM ./{gguf}"]
    if layout is not None:
        parts.append(f'TEMPLATE """{_template(layout, infilling)}"""')
    else:
        parts.append(NOTE.rstrip())
    if system:
        parts.append(f'SYSTEM """{system}"""')
    # Ollama reads quoted values as they are, with line breaks and without escapes
    parts += [f'PARAMETER stop """{text}"""' for text in stop]
    # greedy, as in the evaluation; Ollama's own penalty would change even the likeliest token
    parts += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    return "\n".join(parts) + "\n"


def _template(layout: TurnLayout, infilling: Sequence[str] | None) -> str:
    """A template in Go's language. Every text is a string in it, because `{{-` removes blanks."""
    before_system, after_system = layout.around_system
    head = _text(layout.heads.get("user", ""))
    if tool := layout.heads.get("tool"):
        head = f'{{{{- if eq .Role "tool" -}}}}{_text(tool)}{{{{- else -}}}}{head}{{{{- end -}}}}'
    lines = [
        f"{{{{- if .System -}}}}{_text(before_system)}{{{{- .System -}}}}{_text(after_system)}",
        f"{{{{- else -}}}}{_text(layout.opening)}{{{{- end -}}}}",
        f"{{{{- $before := {_quoted('')} -}}}}",
        "{{- range .Messages -}}",
        f'{{{{- if eq .Role "assistant" -}}}}{_text(layout.before_answer)}{{{{- .Content -}}}}'
        f"{_text(layout.after_answer)}{{{{- $before = {_quoted(layout.following)} -}}}}",
        f'{{{{- else if ne .Role "system" -}}}}{{{{- $before -}}}}{head}{{{{- .Content -}}}}'
        f"{{{{- $before = {_quoted(layout.between)} -}}}}",
        "{{- end -}}",
        "{{- end -}}",
        _text(layout.before_answer),
    ]
    if infilling:
        places = (".Prompt", ".Suffix", "") if len(infilling) == 3 else (".Suffix", ".Prompt")
        shown = (f"{{{{- {place} -}}}}" if place else "" for place in places)
        filled = "".join(map("".join, zip(map(_text, infilling), shown, strict=True)))
        lines = [
            f"{{{{- if .Suffix -}}}}{filled}",
            "{{- else -}}",
            *lines,
            "{{- end -}}",
        ]
    return "\n".join(filter(None, lines))


def _text(text: str) -> str:
    return f"{{{{- {_quoted(text)} -}}}}" if text else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
