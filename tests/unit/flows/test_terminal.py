"""Lines for a terminal: wrapped between words, colored, and the cursor is shown at every end."""

import os
import re
import signal
import struct
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from flows import terminal
from flows.orchestration.progress_sinks import TimeLeft

pty = pytest.importorskip("pty")
BAR = """
import fcntl, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C in it is for this program
from rich.console import Console
from flows import terminal
from flows.cli import LazyCommands, finetune, main
from flows.commands import plan
from flows.orchestration.progress_sinks import TerminalSink
from tasks.core.system.interrupts import stop_signals_raise
from contextlib import closing
def print_plan(request, as_json):
    with stop_signals_raise(), closing(TerminalSink(Console())) as sink:
        for step in range(1000):
            sink.update("train", step, 1000, "loss 1.0")
            time.sleep(0.02)
    return 0
plan.print_plan = print_plan
sys.exit(main(["plan", "--profile", "cpu_demo"]))
"""


def test_a_line_is_cut_between_words_and_goes_on_below_its_last_column() -> None:
    line = "filter    RUN    config filter.max_function_lines 150 -> 100"
    assert terminal.wrapped([line], 40) == [
        "filter    RUN    config",
        "                 filter.max_function_lines",
        "                 150 -> 100",
    ]


def test_no_line_ends_between_a_number_and_its_percent_sign() -> None:
    assert terminal.wrapped(["similarity 39.6 % -> 51.4 %"], 25) == [
        "similarity 39.6 % ->",
        "51.4 %",
    ]


def test_a_narrow_terminal_keeps_half_its_width_for_the_last_column() -> None:
    line = "filter    RUN    config filter.max_function_lines 150 -> 100"
    assert terminal.wrapped([line], 30)[1:] == [
        f"{' ' * 15}{part}" for part in ("filter.max_function_lines", "150 -> 100")
    ]


def test_a_dumb_terminal_gets_no_control_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with os.fdopen(theirs, "w") as stream, os.fdopen(ours, "rb", 0) as shown:
        monkeypatch.setattr(sys, "stdout", stream)
        terminal.show("evaluation: improved")
        terminal.restore()
        assert shown.read(100) == b"evaluation: improved\r\n"


def test_an_encoding_without_arrows_gets_plain_characters() -> None:
    program = "from flows import terminal; terminal.print_any_text(); "
    program += r"print('6.2 \u2192 6.1 (\u22120.1 \u00b7 \u4f60 \udcff)')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert said == "6.2 -> 6.1 (-0.1 - ? ?)\n"


def test_a_path_is_never_cut() -> None:
    path = "/a/very/long/path-with-hyphens/report.html"
    assert path in terminal.wrapped([f"report:       {path}"], 20)[-1]


def test_verdicts_have_colors_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.colored("evaluation: regressed") == "evaluation: \x1b[31mregressed\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.colored("evaluation: regressed") == "evaluation: regressed"


def test_the_time_left_is_known_from_the_second_step_on_however_slow_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.orchestration.progress_sinks.time.monotonic", lambda: 120.0)

    # resumed at step 340, a minute a step
    fields = {"first": 340.0, "since": 0.0, "now": 120.0}
    task: Any = SimpleNamespace(completed=342.0, total=346.0, fields=fields)
    assert str(TimeLeft().render(task)) == "4 min 0 s left"
    task.completed = task.total
    assert str(TimeLeft().render(task)) == ""


def in_terminal(number: signal.Signals | None) -> tuple[int, str]:
    """Exit code and output of a program with a bar in a terminal, which gets a signal."""
    import fcntl
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color"}
    program = subprocess.Popen(
        [sys.executable, "-c", BAR],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    shown, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        try:
            shown += os.read(master, 65536)
        except OSError:  # the program has closed the terminal
            break
        if b" left" in shown and number is not None:
            if number == signal.SIGINT:
                os.write(master, b"\x03")  # as the key does
            else:
                program.send_signal(number)
            number = None
    os.close(master)
    return program.wait(30), shown.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_removes_the_bar_and_shows_the_cursor_and_the_prompt_gets_its_own_line(
    number: signal.Signals,
) -> None:
    code, shown = in_terminal(number)
    assert code == 128 + number
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.rpartition("\x1b[2K")[2])
    assert last.strip() == "stopped; finished stages are kept, run again to continue"
    assert last.endswith("\n")
