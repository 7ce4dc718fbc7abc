"""Stop signals: raised once, again when the exception was discarded, never in a shutdown."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from tasks.core.system.interrupts import (
    SHUTDOWN_S,
    STOP_SIGNALS,
    StopHandler,
    TerminationError,
    current_handler,
    settle,
    stop_signals_raise,
)
from tests.conftest import REPOSITORY


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_each_stop_signal_raises_with_its_number(number: int) -> None:
    with stop_signals_raise(), pytest.raises(TerminationError) as stopped:
        send(number)
    assert stopped.value.number == number
    assert not isinstance(signal.getsignal(number), StopHandler)


def test_second_signal_does_not_interrupt_the_shutdown() -> None:
    with stop_signals_raise() as handler:
        try:
            send(signal.SIGTERM)
        except TerminationError:
            for number in STOP_SIGNALS:  # while the exception is being handled
                send(number)
            settle()
        assert handler.number == signal.SIGTERM


def test_discarded_exception_is_raised_again() -> None:
    with stop_signals_raise(), pytest.raises(TerminationError):
        with contextlib.suppress(BaseException):  # as around an optional import
            send(signal.SIGHUP)
        time.sleep(5)
        pytest.fail("the signal was lost")


def test_exception_that_a_destructor_swallows_is_raised_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Destroyed:
        def __del__(self) -> None:
            send(signal.SIGINT)

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    with stop_signals_raise(), pytest.raises(TerminationError):
        del [Destroyed()][0]
        time.sleep(5)
        pytest.fail("the signal was lost")


def test_signal_after_a_shutdown_that_hangs_raises_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with stop_signals_raise(), pytest.raises(TerminationError):
        try:
            send(signal.SIGTERM)
        except TerminationError as kept:
            now[0] += SHUTDOWN_S + 1
            send(signal.SIGTERM)
            pytest.fail(f"still ignored after {kept}")


def test_signal_that_was_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signals_raise():
            send(signal.SIGHUP)
            assert signal.getsignal(signal.SIGINT) is current_handler()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nested_block_takes_back_a_signal_that_a_library_replaced() -> None:
    with stop_signals_raise() as outer:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with stop_signals_raise() as inner:
            assert inner is outer
            assert signal.getsignal(signal.SIGTERM) is outer


PROGRAM = """
import os, signal, sys
from flows import cli
def busy(_): os.kill(os.getpid(), {number}); raise ValueError("because of the signal")
cli.LazyCommands.get_command = lambda *_: cli.click.Command("busy", callback=lambda: busy(0))
code = cli.process()
for number in (1, 2, 15): os.kill(os.getpid(), number)
sys.exit(code)
"""


@pytest.mark.parametrize("number", [int(n) for n in STOP_SIGNALS])
def test_process_ends_with_the_number_of_the_first_signal_whatever_follows(number: int) -> None:
    program = [sys.executable, "-c", PROGRAM.format(number=number), "busy"]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ended.returncode == 128 + number
    assert ended.stderr == "stopped; finished stages are kept, run again to continue\n"
