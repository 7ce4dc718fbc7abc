"""The chat template of the merged model, so that every program prompts as the training did.

Templates of text become a Jinja template. A chat template stays as it is, with the system text of
the settings for conversations that have none, and the date of the settings as today's.
"""

import json
import re
from datetime import date

from tasks.core.text.prompt_templates import PromptTemplate
from tasks.merging.prompt_format.turn_layout import BETWEEN, TurnLayout

# Written with few means, because llama.cpp runs it, too. Its `tojson` can't sort keys, as training
# does, so that those of tools are in the order of the request.
_TURNS = """\
{%- macro text_of(message) -%}
  {{- message['content'] or '' -}}
  {%- for call in message['tool_calls'] or [] -%}
    {%- if message['content'] or not loop.first -%}{{- '\\n' -}}{%- endif -%}
    {{- '{"arguments": ' -}}
    {%- if call['function']['arguments'] is string -%}{{- call['function']['arguments'] -}}
    {%- else -%}{{- call['function']['arguments'] | tojson -}}{%- endif -%}
    {{- ', "name": ' -}}{{- call['function']['name'] | tojson -}}{{- '}' -}}
  {%- endfor -%}
{%- endmacro -%}
{%- set ns = namespace(system=DEFAULT_SYSTEM, before='') -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set ns.system = messages[0]['content'] -%}
{%- endif -%}
{%- if tools -%}
  {%- if ns.system -%}{%- set ns.system = ns.system + BETWEEN -%}{%- endif -%}
  {%- set ns.system = ns.system + 'Tools:' -%}
  {%- for tool in tools -%}
    {%- set ns.system = ns.system + '\\n' + (tool | tojson) -%}
  {%- endfor -%}
{%- endif -%}
{%- if ns.system -%}{{- BEFORE_SYSTEM + ns.system + AFTER_SYSTEM -}}
{%- else -%}{{- OPENING -}}{%- endif -%}
{%- for message in messages -%}
  {%- if message['role'] == 'assistant' -%}
    {{- BEFORE_ANSWER -}}{{- text_of(message) -}}{{- AFTER_ANSWER -}}
    {%- set ns.before = FOLLOWING -%}
  {%- elif not (loop.first and message['role'] == 'system') -%}
    {{- ns.before -}}
    {%- if message['role'] == 'tool' -%}{{- TOOL_HEAD -}}{%- else -%}{{- USER_HEAD -}}{%- endif -%}
    {{- text_of(message) -}}
    {%- set ns.before = BETWEEN -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- BEFORE_ANSWER -}}{%- endif -%}
"""
_NAMES = re.compile(r"\b[A-Z][A-Z_]+\b")
_DATE_CALL = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_DEFAULT_SYSTEM = """\
{%- if messages[0]['role'] != 'system' -%}
  {%- set messages = [{'role': 'system', 'content': SYSTEM}] + messages -%}
{%- endif -%}
"""
# for a template without a system role
_SYSTEM_IN_FIRST_MESSAGE = """\
{%- if messages[0]['role'] == 'user' -%}
  {%- set text = SYSTEM + messages[0]['content'] -%}
  {%- set messages = [{'role': 'user', 'content': text}] + messages[1:] -%}
{%- endif -%}
"""


def chat_template_of(layout: TurnLayout, system: str, bos: str) -> str:
    """A Jinja template that writes a layout.

    Args:
        layout: Of a template of text.
        system: System text of conversations that have none.
        bos: Text of the tokens that the tokenizer puts before a text; "" none. Programs that apply
            a chat template don't let the tokenizer add them.
    """
    texts = {
        "DEFAULT_SYSTEM": system,
        "BEFORE_SYSTEM": layout.around_system[0],
        "AFTER_SYSTEM": layout.around_system[1],
        "OPENING": layout.opening,
        "BETWEEN": layout.between,
        "BEFORE_ANSWER": layout.before_answer,
        "AFTER_ANSWER": layout.after_answer,
        "FOLLOWING": layout.following,
        "TOOL_HEAD": layout.heads.get("tool", ""),
        "USER_HEAD": layout.heads.get("user", ""),
    }
    turns = _NAMES.sub(lambda name: _quoted(texts[name[0]]), _TURNS)
    return (f"{{{{- {_quoted(bos)} -}}}}\n" if bos else "") + turns


def adapted_chat_template(source: str, template: PromptTemplate, has_system_role: bool) -> str:
    """A chat template with the system text and the date of the settings.

    Args:
        source: In Jinja, as the training used it.
        template: Its settings.
        has_system_role: It accepts messages of the system.
    """
    day = date.fromisoformat(template.date)
    dated = _DATE_CALL.sub(lambda call: _quoted(day.strftime(call[2])), source)
    if not template.system:
        return dated
    start = _DEFAULT_SYSTEM if has_system_role else _SYSTEM_IN_FIRST_MESSAGE
    system = template.system if has_system_role else template.system + BETWEEN
    return start.replace("SYSTEM", _quoted(system)) + dated


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
