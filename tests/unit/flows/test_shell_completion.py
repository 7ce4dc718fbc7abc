"""Completion in bash, zsh and fish: the script of each shell, run by that shell."""

import os
import shutil
import subprocess
import sys

import pytest

from flows.cli import main
from tests.conftest import REPOSITORY

# each loads the script by the line of the README, completes the words, and prints what it offers
SHELLS = {
    "bash": """
eval "$(_FINETUNE_COMPLETE=bash_source finetune)"
COMP_WORDS=({words}) COMP_CWORD={last}
compopt() {{ true; }}  # works only while bash itself completes
_finetune_completion finetune
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "zsh": """
autoload -Uz compinit && compinit -D
eval "$(_FINETUNE_COMPLETE=zsh_source finetune)"
[[ $_comps[finetune] == _finetune_completion ]] || exit 1
_describe() {{ print -l $completions_with_descriptions }}  # these work only inside of zsh's editor
compadd() {{ print -l $completions }}
words=({words}) CURRENT=$(({last} + 1))
_finetune_completion
""",
    "fish": """
_FINETUNE_COMPLETE=fish_source finetune | source
complete -C "{words}"
""",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A PATH on which `finetune` is this checkout's."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "finetune"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m flows.cli "$@"\n'
    )
    command.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("finetune", "ru"), {"run", "runs"}),
        (("finetune", "plan", "--profile", "cpu"), {"cpu_demo"}),
    ],
)
def test_the_shell_completes_commands_and_profiles(shell, words, expected, path, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = SHELLS[shell].format(words=" ".join(words), last=len(words) - 1)
    done = subprocess.run(
        [shell, "-c", script],
        env={"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    offered = {line.split("\t")[0].split(":")[0] for line in done.stdout.splitlines() if line}
    assert offered == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_without_the_shell_its_script_and_its_answers_are_right(shell, monkeypatch, capsys):
    monkeypatch.setenv("_FINETUNE_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit):
        main([])
    assert "_finetune_completion" in capsys.readouterr().out
    monkeypatch.setenv("_FINETUNE_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", "finetune ru")
    monkeypatch.setenv("COMP_CWORD", "ru" if shell == "fish" else "1")  # fish: the word itself
    with pytest.raises(SystemExit):
        main([])
    lines = capsys.readouterr().out.splitlines()
    names = [line.removeprefix("plain,").split("\t")[0] for line in lines]
    assert [name for name in names if name in ("run", "runs")] == ["run", "runs"]
