"""Turn layout: the text that a template writes around the messages of a conversation.

Templates of text have such a layout by definition. A chat template in Jinja is a program; its
layout is read from conversations that it writes, and checked on a longer one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.core.text.chat_environment import ConversationError
from tasks.core.text.prompt_templates import INSTRUCTION, TOOL, PromptTemplate, complete, render
from tasks.core.text.special_tokens import literal

BETWEEN = "\n\n"
# Unicode noncharacters, which no template writes
_SYSTEM, _GIVEN, _ANSWER = "\ufdd4", "\ufdd5", "\ufdd6"
Messages = Sequence[Mapping[str, str]]
Render = Callable[[Messages], str]


@dataclass(frozen=True)
class TurnLayout:
    """Text around messages; control tokens are written by their names.

    Attributes:
        opening: Before the first message, without a system text.
        around_system: Before and after a system text, which then takes the place of `opening`.
        heads: Before a message, by its role.
        between: Between messages to the same answer.
        before_answer: Before an answer: the end of a prompt.
        after_answer: After an answer.
        following: Before the first message after an answer.
    """

    opening: str
    around_system: tuple[str, str]
    before_answer: str
    after_answer: str
    following: str = ""
    between: str = BETWEEN
    heads: Mapping[str, str] = field(default_factory=dict)

    def prompt(self, messages: Messages, system: str = "") -> str:
        """The prompt of a conversation; `system` is the system text of one that has none."""
        if messages and messages[0]["role"] == "system":
            system, messages = messages[0]["content"], messages[1:]
        text = system.join(self.around_system) if system else self.opening
        before = ""
        for message in messages:
            if message["role"] == "assistant":
                text += self.before_answer + message["content"] + self.after_answer
                before = self.following
            else:
                text += before + self.heads.get(message["role"], "") + message["content"]
                before = self.between
        return text + self.before_answer


def layout_of_text(template: PromptTemplate) -> TurnLayout:
    """The layout of a template of text, as `prompt_templates.as_segments` writes turns."""
    plain = literal(render(PromptTemplate(template.text), _GIVEN))
    opening, _, before_answer = plain.partition(_GIVEN)
    before, found, rest = literal(render(PromptTemplate(template.text, _SYSTEM), _GIVEN)).partition(
        _SYSTEM
    )
    after, is_before_message, _ = rest.partition(_GIVEN)
    if not (found and is_before_message):  # a template with the system text after the instruction
        before, after = "", BETWEEN + opening
    heads = {}
    following = BETWEEN + opening
    if template.text == "instruction":
        heads = dict.fromkeys(("system", "user"), f"{INSTRUCTION}\n") | {"tool": f"{TOOL}\n"}
        opening, after = (text.removesuffix(heads["user"]) for text in (opening, after))
        following = BETWEEN
    return TurnLayout(
        opening=opening,
        around_system=(before, after),
        before_answer=before_answer,
        after_answer=literal(complete(PromptTemplate(template.text), "")),
        following=following,
        heads=heads,
    )


def layout_of_chat(render_prompt: Render) -> TurnLayout | None:
    """The layout of a chat template; None if its text is not such a sequence.

    Args:
        render_prompt: Messages -> the text up to where the model answers; raises ConversationError.
    """
    system, given, answer = (
        {"role": role, "content": text}
        for role, text in (("system", _SYSTEM), ("user", _GIVEN), ("assistant", _ANSWER))
    )
    opening, _, before_answer = render_prompt([given]).partition(_GIVEN)
    _, _, after = render_prompt([given, answer, given]).partition(_ANSWER)
    after_answer, found, _ = after.partition(_GIVEN)
    around = opening, BETWEEN
    try:
        before, has_system, rest = render_prompt([system, given]).partition(_SYSTEM)
    except ConversationError:  # no system role: training puts the text before the first message
        has_system = ""
    if has_system:
        around = before, rest.partition(_GIVEN)[0]
    layout = TurnLayout(opening, around, before_answer, after_answer)
    if not found:
        return None
    probes = [[given, answer, given, answer, given]]
    probes += [[system, *probes[0]]] if has_system else []
    is_same = all(layout.prompt(messages) == render_prompt(messages) for messages in probes)
    return layout if is_same else None
