"""Every number in the documentation has one source.

Checked are numbers with a unit of measurement, with a thousands separator or with three decimals,
in README.md, CONTRIBUTING.md, data/README.md, docs/ and the comments of the profiles. Each is

- in a table of benchmarks/README.md, in a section that its own section (or its profile's comments)
  links to, as `benchmarks/README.md#section`, rounded as the text shows it; or
- a constant of the code, in `CONSTANTS`; or
- without a unit: a setting's default or a value of a profile.

To cite a measurement, put it into a table of benchmarks/README.md and link to the table's section.
"""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.random_model import SHAPE, VOCABULARY
from flows import profiles
from flows.commands.doctor.machine import FREE_GIB, MIN_FREE_GIB
from flows.commands.init.machine import MIN_GPU_GIB
from flows.orchestration.child_processes import RESTART_S
from tasks.core.rows.row_cache_shards import SHARDS
from tasks.core.sandbox.levels import TMP_MIB
from tasks.core.settings import config as configs
from tasks.core.system.retry import FIRST_WAIT_S
from tasks.evaluation.gate.statistics import CONFIDENCE
from tasks.tokenization.audit import MAX_INEXACT_SHARE

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "benchmarks/README.md"
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")] + [
    # settings.md is generated from the settings
    path
    for path in sorted((REPOSITORY / "docs").glob("*.md"))
    if path.name != "settings.md"
]
PROFILES = [profiles.locate(name) for name in profiles.names()]
CONSTANTS = {
    "9.0 GiB": configs.load(profiles.locate("stable_code_3b_10gb")).hardware.vram_gib,
    "32 layers": SHAPE["num_hidden_layers"],
    "16 shards": SHARDS,
    "95 %": 100 * CONFIDENCE,
    "20 GiB": FREE_GIB,
    "1 GiB": MIN_FREE_GIB,
    "6 GiB": MIN_GPU_GIB,
    "5 s": FIRST_WAIT_S,
    "10 s": 2 * FIRST_WAIT_S,
    "15 s": RESTART_S,
    "0.48 GiB": 4 * VOCABULARY * SHAPE["hidden_size"] / 2**30,  # embeddings in 32 bit
    "32 MiB": TMP_MIB,
    "1 %": 100 * MAX_INEXACT_SHARE,
    "30 s": 30,  # of Prefect: a cancelled process is killed after this time
}
SAME = {"seconds": "s", "second": "s", "minutes": "min", "hours": "h", "times": "x"}
UNITS = "tokens/s|rows/s|MB/s|GiB/s|GiB|MiB|ms|min|s|%|layers|shards|" + "|".join(SAME)
NUMBER = r"\d[\d,]*(?:\.\d+)?"
DURATION = re.compile(rf"(?:(\d+)\s+h\s+)?(\d+)\s+min\s+({NUMBER})\s+s\b")
MEASURED = re.compile(
    rf"(?<![\w.,:/-])(?:({NUMBER})\s+(?:of|to)\s+)?({NUMBER})(x|\s*(?:{UNITS}))(?![\w/])"
)
PLAIN = re.compile(r"(?<![\w.,:/-])(\d{1,3}(?:,\d{3})+|\d+\.\d{3})(?![\w.])")
SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


class Fact(NamedTuple):
    """A number as it is written, and what it says.

    Attributes:
        value: In the unit; times in seconds.
        step: Value of the last digit shown.
        unit: "" where none is given.
    """

    text: str
    value: float
    step: float
    unit: str

    def agrees(self, other: "Fact") -> bool:
        """Whether `other`, rounded to the digits of this one, is this one."""
        near = abs(self.value - other.value) <= self.step / 2 + 1e-9
        return near and self.unit in ("", other.unit)


def fact(number: str, unit: str) -> Fact:
    digits = number.replace(",", "")
    unit = SAME.get(unit.strip(), unit.strip())
    scale = SECONDS.get(unit, 1.0)
    step = scale * 10.0 ** -len(digits.partition(".")[2])
    known = "s" if unit in SECONDS else unit
    return Fact(f"{number} {unit}".strip(), float(digits) * scale, step, known)


def facts(text: str) -> Iterator[Fact]:
    """The checked numbers of a text."""
    for hours, minutes, seconds in DURATION.findall(text):
        value = 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds)
        yield Fact(f"{hours} h {minutes} min {seconds} s".removeprefix(" h "), value, 1.0, "s")
    text = DURATION.sub(" ", text)
    for first, second, unit in MEASURED.findall(text):
        yield from (fact(number, unit) for number in (first, second) if number)
    yield from (fact(number, "") for number in PLAIN.findall(MEASURED.sub(" ", text)))


def sections(text: str) -> dict[str, str]:
    """Text below each heading of a page, by the heading's anchor."""
    found, anchor, in_code = {"": ""}, "", False
    for line in text.splitlines():
        in_code ^= line.startswith("```")
        if line.startswith("#") and not in_code:
            words = re.sub(r"[^\w\s-]", "", line.lstrip("# ").lower())
            anchor = words.replace(" ", "-")
        found[anchor] = found.get(anchor, "") + line + "\n"
    return found


def table_facts(section: str) -> list[Fact]:
    """All numbers in the tables of a section, with the unit of the cell or else of the column."""
    found: list[Fact] = []
    header: list[str] = []
    for line in section.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
            continue
        for cell, title in zip(cells, header, strict=True):
            found += facts(cell)
            units = re.findall(rf"(?<![\w/])(?:{UNITS})(?![\w/])", title)
            rest = MEASURED.sub(" ", DURATION.sub(" ", cell))
            found += [fact(n, units[0] if units else "") for n in re.findall(NUMBER, rest)]
    return found


TABLES = {anchor: table_facts(text) for anchor, text in sections(SOURCE.read_text()).items()}


def settings_values() -> set[float]:
    """Every number among the defaults and the values of the profiles."""
    loaded = [configs.check({})] + [configs.load(path) for path in PROFILES]
    text = " ".join(config.model_dump_json() for config in loaded)
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}


def places() -> Iterator[tuple[str, str]]:
    """(name, text) of every place that states facts: sections of pages, comments of profiles."""
    for path in PAGES:
        for anchor, text in sections(path.read_text()).items():
            yield f"{path.relative_to(REPOSITORY)}#{anchor}", text
    for path in PROFILES:
        comments = re.findall(r"#(.*)", path.read_text())
        yield path.name, "\n".join(comments)


def linked(text: str) -> list[str]:
    return re.findall(r"benchmarks/README\.md#([\w-]+)", text)


@pytest.mark.parametrize(("name", "text"), [pytest.param(*p, id=p[0]) for p in places()])
def test_every_number_is_in_a_linked_benchmark_table_or_a_constant_of_the_code(name, text):
    sources = list(chain.from_iterable(TABLES[anchor] for anchor in linked(text)))
    settings = settings_values()
    unknown = [
        found.text
        for found in facts(text)
        if found.text not in CONSTANTS
        and not any(found.agrees(source) for source in sources)
        and not (found.unit == "" and found.value in settings)
    ]
    assert unknown == [], f"{name}: not in the linked tables {linked(text)}"


@pytest.mark.parametrize("text", CONSTANTS)
def test_a_constant_has_the_value_that_the_pages_state(text):
    (stated,) = facts(text)
    assert stated.agrees(Fact(text, CONSTANTS[text], 0, stated.unit))


def test_each_benchmark_table_has_a_command_above_it_and_a_date():
    for anchor, text in sections(SOURCE.read_text()).items():
        before = ""
        for block in re.split(r"\n\s*\n", text):
            if block.startswith("|") and "calculated:" not in before:
                assert re.search(r"20\d\d-\d\d-\d\d", before), f"{anchor}: {block[:60]}"
                assert re.search(
                    r"^    (python -m benchmarks|make |finetune (run|sweep) )", text, re.MULTILINE
                ), anchor
            before = block


def test_the_pages_state_many_facts():
    assert sum(len(list(facts(text))) for _, text in places()) > 60


def test_a_changed_number_is_found_on_either_side():
    (stated,) = facts("training takes 6.8 GiB")
    assert stated.agrees(fact("6.81", "GiB"))
    assert not stated.agrees(fact("6.86", "GiB"))
    assert not stated.agrees(fact("6.81", "s"))
    (stated,) = facts("in 5 min")
    assert stated.agrees(fact("300.8", "s"))
    assert not stated.agrees(fact("331", "s"))
    assert [found.text for found in facts("6.8 of 9.0 GiB")] == ["6.8 GiB", "9.0 GiB"]
