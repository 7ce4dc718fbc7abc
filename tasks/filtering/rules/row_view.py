"""A row as the filter rules read it; properties that several rules need are computed once."""

from dataclasses import dataclass
from functools import cached_property

from tasks.core.languages.protocol import ParsedFunction, ParsedSource
from tasks.core.languages.python.source import parse_python
from tasks.filtering.rules.content import content_of, measured_code


@dataclass(frozen=True)
class RowView:
    """One row. Rules about code measure `code`.

    Attributes:
        base_loss: Of the base model on the output, in nats per token; None: not measured.
    """

    instruction: str
    input: str
    output: str
    kind: str
    licence: str
    language: str = ""
    base_loss: float | None = None

    @property
    def is_python(self) -> bool:
        """Whether the output is read as Python: rows of unknown language are."""
        return self.language in ("", "python")

    @cached_property
    def lines(self) -> list[str]:
        """Lines of the output."""
        return self.output.splitlines() or [""]

    @cached_property
    def code(self) -> str:
        """The code of the output that the thresholds for code apply to; "" if there is none."""
        return measured_code(self.kind, self.output)

    @cached_property
    def code_lines(self) -> list[str]:
        """Lines of `code`."""
        return self.code.splitlines()

    @property
    def content(self) -> str:
        """Class of the output; see `content_of`."""
        return content_of(self.kind, self.output, self.source)

    @property
    def source(self) -> ParsedSource | None:
        """The output as a syntax tree of Python; None if it does not parse."""
        return self._parsed[0]

    @property
    def syntax_error(self) -> str:
        """Why the output does not parse; "" if it does."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[ParsedSource | None, str]:
        return parse_python(self.output) if self.is_python else (None, "")

    @cached_property
    def function(self) -> ParsedFunction | None:
        """The first function of the output."""
        return next(self.source.functions(), None) if self.source else None

    @cached_property
    def docstring(self) -> str:
        """The function's docstring; else the instruction up to its first empty line, which is
        followed by the signature when the docstring became the instruction."""
        inside = self.function.docstring if self.function else ""
        return inside or self.instruction.partition("\n\n")[0]
