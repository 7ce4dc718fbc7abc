"""A row as the filter rules read it; properties that several rules need are computed once."""

from dataclasses import dataclass, field

from tasks.core.languages.protocol import ParsedFunction, ParsedSource
from tasks.core.languages.python.source import parse_python
from tasks.filtering.rules.content import content_of, measured_code


@dataclass(slots=True)
class RowView:
    """One row. Rules about code measure `code`.

    Attributes:
        base_loss: Of the base model on the output, in nats per token; None: not measured.
        is_python: Whether the output is read as Python: rows of unknown language are.
        source: The output as a syntax tree of Python; None if it does not parse.
        syntax_error: Why it does not; "" if it does.
        function: The first function of the output.
        docstring: The function's docstring; else the instruction up to its first empty line, which
            is followed by the signature when the docstring became the instruction.
        lines: Of the output.
        code: The code of the output that the thresholds for code apply to; "" if there is none.
        code_lines: Lines of `code`.
    """

    instruction: str
    input: str
    output: str
    kind: str
    licence: str
    language: str = ""
    base_loss: float | None = None

    is_python: bool = field(init=False)
    source: ParsedSource | None = field(init=False)
    syntax_error: str = field(init=False)
    function: ParsedFunction | None = field(init=False)
    docstring: str = field(init=False)
    lines: list[str] = field(init=False)
    code: str = field(init=False)
    code_lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.is_python = self.language in ("", "python")
        self.source, self.syntax_error = parse_python(self.output) if self.is_python else (None, "")
        self.function = next(self.source.functions(), None) if self.source else None
        inside = self.function.docstring if self.function else ""
        self.docstring = inside or self.instruction.partition("\n\n")[0]
        self.lines = self.output.splitlines() or [""]
        self.code = measured_code(self.kind, self.output)
        self.code_lines = self.code.splitlines()

    @property
    def content(self) -> str:
        """Class of the output; see `content_of`."""
        return content_of(self.kind, self.output, self.source)
