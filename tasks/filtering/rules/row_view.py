"""A row as the rules see it; what several of them need is worked out once."""

import ast
import warnings
from dataclasses import dataclass
from functools import cached_property

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Sample:
    """One row. Rules about code look at `output`."""

    instruction: str
    input: str
    output: str
    kind: str
    licence: str

    @cached_property
    def lines(self) -> list[str]:
        """Lines of the output."""
        return self.output.splitlines() or [""]

    @cached_property
    def parsed(self) -> tuple[ast.Module | None, str]:
        """The output as a syntax tree and "", or None and why it does not parse."""
        return parse(self.output)

    @cached_property
    def function(self) -> Function | None:
        """The first function of the output."""
        tree = self.parsed[0]
        return (
            next((node for node in tree.body if isinstance(node, Function)), None) if tree else None
        )

    @cached_property
    def docstring(self) -> str:
        """The function's docstring; where the output goes without, the instruction up to its last
        empty line, behind which the signature stands."""
        inside = ast.get_docstring(self.function) if self.function else None
        return inside or self.instruction.partition("\n\n")[0]


def parse(text: str) -> tuple[ast.Module | None, str]:
    """A text as a syntax tree and "", or None and why it does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text), ""
        except SyntaxError as error:
            return None, f"line {error.lineno or 0}: {error.msg}"
        except (ValueError, RecursionError, MemoryError) as error:
            return None, str(error) or type(error).__name__
