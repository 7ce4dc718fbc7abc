"""Every `finetune` command of the README and the pages runs, on the tiny model instead of the
profile that it names.

Those that need a GPU, hours or a server of their own are run so by other tests; see
tests/unit/test_docs.py.
"""

import shlex

import pytest

from flows.cli import main
from flows.commands.doctor import machine
from tests.conftest import REPOSITORY, write_small_profile
from tests.unit.test_docs import NOT_RUN, commands_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WITH_PROFILE = ("plan", "run", "rerun", "explain", "show", "adopt", "accept", "promote")
# what else than 0 a command may end with: work to do; refused by the gate; something to mend
CODES = {"plan": {10}, "promote": {2}, "rollback": {2}, "doctor": {1}}
# test_operations, test_sweep, test_gallery; in tests/unit/flows: test_try_model, test_serve_model,
# test_delivery, test_init
ELSEWHERE = ("serve", "sweep", "try", "serve-model", "export", "init")
ON_A_CLUSTER = "task_runner=ray"  # test_task_runners, with the packages of the extra `ray`


def adapted(line, profile, model):
    """The words of a command, on the small profile."""
    words = shlex.split(line, comments=True)[1:]
    for place, word in enumerate(words):
        if word == "--profile":
            words[place + 1] = str(profile)
        elif word.startswith("base.path="):
            words[place] = f"base.path={model}"
        elif word.startswith("ingest.sources[0].path="):
            words[place] = f"ingest.sources[0].path={REPOSITORY / 'data' / 'sample'}"
    if words[0] in WITH_PROFILE and "--profile" not in words:
        words += ["--profile", str(profile)]
    return words


@pytest.fixture(scope="module")
def place(prefect_server, tiny_model, tmp_path_factory):
    """A home in which the pipeline has run twice: (profile, model)."""
    folder = tmp_path_factory.mktemp("documented")
    profile = write_small_profile(folder / "small.yaml", tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(folder / "home"))
        patch.setattr(machine, "quantization", lambda: [])  # seconds; it has tests of its own
        for _ in range(2):  # `diff` compares two
            assert main(["run", "--profile", str(profile)]) == 0
        yield profile, tiny_model


def lines():
    found = (line for _, line in commands_of(("finetune",)) if NOT_RUN not in line)
    unique = dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for line in found)
    return [n for n in unique if n.split()[1] not in ELSEWHERE and ON_A_CLUSTER not in n]


@pytest.mark.parametrize("line", lines())
def test_a_documented_command_runs(place, line, capsys):
    words = adapted(line, *place)
    assert main(words) in {0} | CODES.get(words[0], set()), capsys.readouterr().err
