from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.core.errors import PipelineError
from tasks.core.sandbox import INFRA, Outcome, Sandbox
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.ingestion import STAGE
from tasks.ingestion.executable import EXECUTABLE

GOOD = '''def {name}(x):
    """{words}.

    >>> {name}(1)
    {one}
    >>> {name}(2)
    {two}
    """
    return {body}
'''


def function(name: str, one: str, two: str, body: str) -> str:
    return GOOD.format(name=name, words=f"Say what {name} is", one=one, two=two, body=body)


def run(tmp_path: Path, name: str, **settings) -> tuple[dict, list[dict], list[dict]]:
    source = {"kind": "folder", "path": str(tmp_path / "code"), **settings.pop("source", {})}
    config = check(
        {
            "ingest": {"sources": [source], "doctest_timeout_s": 20, **settings},
            "hardware": {"workers": 1},
        }
    )
    out = tmp_path / name
    (out / "scratch").mkdir(parents=True)
    work = Work(out, out / "scratch", tmp_path / "shards" / "ingest", "code")
    summary = STAGE.load_run()(View(config, STAGE.reads), {}, work)
    tables = [pq.read_table(out / f"{n}.parquet").to_pylist() for n in ("rows", "executable")]
    return dict(summary.counts), *tables


def write(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text(
        "import numpy\n\n\n"
        + function("double", "2", "4", "2 * x")
        + function("broken", "2", "4", "3 * x")
        + function("outside", "2", "4", "numpy.add(x, x)")
        + function("nothing", "None", "None", "None").replace("    None\n", "")
    )


def test_rows_whose_doctests_pass_are_marked_and_the_others_counted(tmp_path) -> None:
    write(tmp_path)
    counts, rows, executable = run(tmp_path, "out", doctests=True)
    names = {row["row_id"]: row["output"].split("(")[0] for row in rows}
    assert {names[e["row_id"]]: bool(e["test"]) for e in executable} == {
        "def double": True,
        "def nothing": False,
    }
    assert counts["doctests: failed"] == 1
    assert counts["doctests: function needs more than the standard library"] == 1


def test_rows_that_a_cap_left_out_are_not_run(tmp_path) -> None:
    write(tmp_path)
    _, rows, executable = run(tmp_path, "out", doctests=True, source={"max_rows": 1})
    assert len(rows) == 1 and {e["row_id"] for e in executable} <= {rows[0]["row_id"]}


def test_nothing_is_run_unless_asked_for(tmp_path) -> None:
    write(tmp_path)
    _, rows, executable = run(tmp_path, "out")
    assert len(rows) == 4 and executable == []
    assert pq.read_schema(tmp_path / "out" / "executable.parquet").names == EXECUTABLE.names


def test_the_same_code_gives_the_same_bytes(tmp_path) -> None:
    write(tmp_path)
    written = []
    for name in ("one", "two"):
        run(tmp_path, name, doctests=True)
        written.append((tmp_path / name / "executable.parquet").read_bytes())
    assert written[0] == written[1]


def test_a_function_that_was_judged_is_not_run_again(tmp_path, monkeypatch) -> None:
    write(tmp_path)
    first = run(tmp_path, "one", doctests=True)
    programs: list[str] = []
    run_all = Sandbox.run_all

    def noted(self, jobs, *rest):
        programs.extend(job.program for job in jobs)
        return run_all(self, jobs, *rest)

    monkeypatch.setattr(Sandbox, "run_all", noted)
    assert run(tmp_path, "two", doctests=True) == first and programs == []
    path = tmp_path / "code" / "a.py"
    path.write_text(path.read_text() + function("triple", "3", "6", "3 * x"))
    assert len(run(tmp_path, "three", doctests=True)[2]) == len(first[2]) + 1
    assert programs and all("triple" in program for program in programs)


def test_a_checker_that_the_kernel_kills_decides_about_no_row(tmp_path, monkeypatch) -> None:
    write(tmp_path)
    tries = []

    def killed(*_):
        tries.append(1)
        return Outcome(INFRA, "the checker was killed")

    with monkeypatch.context() as patch:
        patch.setattr(Sandbox, "defect", lambda _: None)
        patch.setattr(Sandbox, "_once", killed)
        with pytest.raises(PipelineError, match=r"failed for \d of \d programs: the checker was"):
            run(tmp_path, "killed", doctests=True)
    assert len(tries) % 3 == 0
    after, fresh = run(tmp_path, "after", doctests=True), run(tmp_path, "fresh", doctests=True)
    assert after == fresh and after[2]


FORKS = """
import os, time
def {name}():
    '''Say how many processes a doctest may start.

    >>> import os, time
    >>> made = []
    >>> for _ in range(200):
    ...     child = os.fork()
    ...     if not child:
    ...         time.sleep(30)
    ...     made.append(child)
    >>> {name}(), len(made)
    (1, 200)
    '''
    return 1
"""
FORGES = """
import os
def {name}():
    '''Write an outcome of its own.

    >>> import os
    >>> text = b'{{"status": "pass", "detail": ""}}'
    >>> for fd in range(1, 64):
    ...     try:
    ...         _ = os.write(fd, b"%010d" % len(text) + text)
    ...         _ = os.write(fd, b"started" + bytes([10]) + b"0" * 32 + b'["pass", "", 0]')
    ...     except OSError:
    ...         pass
    >>> os._exit({name}())
    '''
    return 0
"""


@pytest.mark.parametrize("attack", [FORKS, FORGES], ids=["200 forks", "an outcome of its own"])
def test_doctests_of_a_repository_have_the_limits_of_an_untrusted_program(tmp_path, attack) -> None:
    (tmp_path / "code").mkdir()
    good = function("double", "2", "4", "2 * x")
    (tmp_path / "code" / "a.py").write_text(f"{attack.format(name='attack')}\n\n{good}")
    counts, rows, executable = run(tmp_path, "out", doctests=True)
    names = {row["row_id"]: row["output"].split("(")[0] for row in rows}
    assert [names[e["row_id"]] for e in executable] == ["def double"]
    assert counts["doctests: failed"] == 1
    running = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in running if b"tasks.core.sandbox" in line]
