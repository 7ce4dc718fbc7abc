"""Tools that compile and run programs of a language inside the sandbox.

Imports the standard library only, because every `finetune plan` reads the user's sets.
"""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tasks.evaluation.problems.languages import sources

_PATH = "/usr/bin:/bin"  # what a sandbox shows
_DRIVER = """
import os
import subprocess

def run():
    os.environ.update({environment!r})
    for name, text in {files!r}.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)
    for command in {commands!r}:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            errors = [line for line in lines if "rror" in line] or lines
            why = errors[0] if errors else f"status {{done.returncode}}"
            raise AssertionError(f"{{os.path.basename(command[0])}}: {{why[:200]}}")
"""


@dataclass(frozen=True)
class Form:
    """One way to run programs of a language.

    Attributes:
        needed: Programs that have to be installed.
        file: Name of the source file; {main} is the class that `sources.main_class` finds.
        commands: Run one after another, in the folder of the file.
        marker: What such programs contain; "" any does.
        trial: Command that succeeds where the installed version can do it; () any version can.
    """

    needed: tuple[str, ...]
    file: str
    commands: tuple[tuple[str, ...], ...]
    marker: str = ""
    trial: tuple[str, ...] = ()

    def missing(self) -> str:
        """The first program that is not installed, or is too old; "" none."""
        absent = next((name for name in self.needed if not _path(name)), "")
        return absent or (self.trial[0] if self.trial and not _succeeds(self.trial) else "")


@dataclass(frozen=True)
class LanguageTool:
    """How programs of a language are run.

    Attributes:
        names: As problem sets write it.
        forms: The first one that is installed and fits the program is used.
        arrange: Rewrites answer and tests, as they follow each other, to a program.
        files: Other files of every program.
        environment: Of its commands.
        absent: Names of libraries that can't be had, by a text of programs that use them.
        finds_itself: The compiler that needs /proc/self/exe; "" none does.
        settings: A file of the compiler whose folder may be outside of /usr; relative to the folder
            above the compiler's; "" none.
    """

    names: tuple[str, ...]
    forms: tuple[Form, ...]
    arrange: Callable[[str], str] = str
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    finds_itself: str = ""
    settings: str = ""

    def missing(self, program: str = "") -> str:
        """What is not installed that such a program needs; "" nothing."""
        found = [form.missing() for form in self.forms]
        if all(found):
            return " or ".join(dict.fromkeys(found))
        return next((name for text, name in self.absent.items() if text in program), "")

    def executable(self) -> str:
        """What /proc/self/exe has to name; "" nothing."""
        return _path(self.finds_itself)

    def folders(self) -> tuple[str, ...]:
        """Folders outside of /usr that the compiler reads."""
        if not self.settings or not (compiler := self.executable()):
            return ()
        folder = (Path(compiler).parents[1] / self.settings).resolve().parents[1]
        return () if folder.is_relative_to("/usr") else (str(folder),)

    def driver(self, text: str) -> str:
        """Python text that defines `run`, which compiles and runs a program and raises if it fails.

        Args:
            text: Answer and tests.
        """
        # bash reads a carriage return as part of a word: `set -e` fails, and every answer passes
        program = self.arrange(text.replace("\r\n", "\n"))
        fitting = [form for form in self.forms if form.marker in program]
        form = next((form for form in fitting if not form.missing()), fitting[-1])
        names = {"main": sources.main_class(program), "tsc": _path("tsc")}
        commands = [[part.format(**names) for part in command] for command in form.commands]
        for command in commands:
            # a link through /etc/alternatives, as Debian's javac, leads nowhere in the sandbox
            command[0] = _path(command[0]) or command[0]
        return _DRIVER.format(
            environment=dict(self.environment),
            files={**self.files, form.file.format(**names): program},
            commands=commands,
        )


def _path(name: str) -> str:
    """The file of an installed program; "" it is not installed."""
    found = shutil.which(name, path=_PATH) if name else None
    linked = Path(found).resolve() if found else Path()
    # a program may do something else under another name
    return str(linked) if linked.name == name else found or ""


@lru_cache
def _succeeds(command: tuple[str, ...]) -> bool:
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0
