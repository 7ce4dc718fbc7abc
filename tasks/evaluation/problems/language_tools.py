"""Tools that compile and run problems of other languages than Python, inside the sandbox.

Answer and tests are one program, as in MultiPL-E and HumanEval-X: it passes if it ends with status
0. So, as in a test that runs `together`, an answer that exits early with status 0 passes. To add a
language, add an entry to `TOOLS`. Imports the standard library only, because every `finetune plan`
reads the user's sets.
"""

import shutil
from dataclasses import dataclass

_PATH = "/usr/bin:/bin"  # what a sandbox shows
# V8 reserves address space in advance and starts a thread for each of its helpers
MEMORY_MIB, PROCESSES = 2048, 64
LEAST_S = 20.0  # g++ takes three for all headers of the standard library, more on a busy machine
_DRIVER = """
import subprocess

def run():
    with open({file!r}, "w", encoding="utf-8") as file:
        file.write({source!r})
    for command in {commands!r}:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            errors = [line for line in lines if "rror" in line] or lines
            why = errors[0] if errors else f"status {{done.returncode}}"
            raise AssertionError(f"{{command[0]}}: {{why[:200]}}")
"""


@dataclass(frozen=True)
class LanguageTool:
    """How programs of a language are run.

    Attributes:
        names: As problem sets write it.
        needed: Programs that have to be installed.
        file: Name of the source file.
        commands: Run one after another, in the folder of the file.
        head: Goes before a program.
    """

    names: tuple[str, ...]
    needed: tuple[str, ...]
    file: str
    commands: tuple[tuple[str, ...], ...]
    head: str = ""

    def missing(self) -> str:
        """The first program that is not installed; "" none."""
        return next((name for name in self.needed if not shutil.which(name, path=_PATH)), "")


TOOLS = {
    "bash": LanguageTool(
        names=("bash", "sh"), needed=("bash",), file="main.sh", commands=(("bash", "main.sh"),)
    ),
    "cpp": LanguageTool(
        names=("cpp", "c++"),
        needed=("g++",),
        file="main.cpp",
        commands=(("g++", "-std=c++17", "-o", "main", "main.cpp"), ("./main",)),
    ),
    "javascript": LanguageTool(
        names=("javascript", "js"),
        needed=("node",),
        file="main.js",
        commands=(("node", "main.js"),),
        # the tests of HumanEval-X use it, and Node's own only prints
        head='console.assert = require("node:assert").ok;\n',
    ),
}


def language_named(name: str) -> str:
    """The key in `TOOLS` of a language as a problem set names it; "" unknown."""
    return next((key for key, tool in TOOLS.items() if name.lower() in tool.names), "")


def driver(language: str, program: str) -> str:
    """Python text that defines `run`, which compiles and runs a program and raises if it fails."""
    tool = TOOLS[language]
    return _DRIVER.format(
        file=tool.file, source=tool.head + program, commands=[list(c) for c in tool.commands]
    )
