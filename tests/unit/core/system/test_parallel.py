import subprocess
import sys
from pathlib import Path

from tasks.core.system.home import REPOSITORY

SCRIPT = """
import math
from tasks.core.system.parallel import ordered_map

print("main")
if __name__ == "__main__":
    print(list(ordered_map(math.sqrt, [1.0, 4.0, 9.0], 2)))
"""


def said(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout


def test_processes_give_results_in_order_and_do_not_import_the_main_module(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n{SCRIPT}")
    assert said(str(script)) == "main\n[1.0, 2.0, 3.0]\n"


def test_a_process_that_judges_rows_or_reads_code_loads_no_settings() -> None:
    modules = "tasks.filtering.score_rows, tasks.ingestion.extract_code, sys"
    assert said("-c", f"import {modules}; print('pydantic' in sys.modules)") == "False\n"
