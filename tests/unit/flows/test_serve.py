"""What ends `finetune serve`; tests of servers see it end everything."""

import os
import signal
import time

import pytest

from flows.orchestration import serve


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_a_stop_and_a_closed_terminal_end_it_once(number):
    before = signal.getsignal(number)
    with pytest.raises(serve._StopError), serve._stoppable():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), number)  # while it ends everything: passed over
            time.sleep(0.1)
    assert signal.getsignal(number) is before


def test_a_terminal_that_is_gone_keeps_nothing_from_ending(monkeypatch):
    def gone(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.print", gone)
    serve.say("stopping")
