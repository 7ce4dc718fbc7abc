"""The variants of a sweep: every combination of the values given to --set.

`--set train.learning_rate=1e-4,2e-4` gives two values, `--set train.max_steps=500` one, which all
variants share. Values are separated by commas outside of brackets and quotes, as in a YAML list.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.settings import config as configs
from tasks.core.settings.config import View
from tasks.pipeline import PIPELINE
from tasks.training import STAGE as TRAIN


@dataclass(frozen=True)
class Variant:
    """One combination of values.

    Attributes:
        values: (Field, value) of each swept field, as text.
        place: Position of each value in its list.
    """

    values: tuple[tuple[str, str], ...]
    place: tuple[int, ...]

    @property
    def label(self) -> str:
        """The values, such as "learning_rate 1e-4, lora_rank 8"."""
        return ", ".join(f"{name.partition('.')[2]} {v}" for name, v in self.values)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The values as overrides, "section.field=value" each."""
        return tuple(f"{name}={value}" for name, value in self.values)


@dataclass(frozen=True)
class Grid:
    """All variants of a sweep, in the order of the values given.

    Attributes:
        fixed: Overrides that all variants share.
        fields: Names of the swept fields.
        variants: Combinations that differ; two spellings of one value count once.
        start: Place of the profile's own values; the middle of a list that lacks its value.
    """

    fixed: tuple[str, ...]
    fields: tuple[str, ...]
    variants: tuple[Variant, ...]
    start: tuple[int, ...]

    def next(self, losses: Mapping[tuple[int, ...], float], left: Sequence[Variant]) -> Variant:
        """The most promising variant of those left: the nearest to the best one so far.

        Args:
            losses: Validation losses so far, by place.
            left: Variants without one.
        """
        best = min(losses, key=lambda place: losses[place]) if losses else self.start
        return min(left, key=lambda v: sum(abs(a - b) for a, b in zip(v.place, best, strict=True)))

    def ends(self, best: Variant) -> list[str]:
        """What to try next where the best number of a list is its smallest or largest one."""
        notes = []
        for number, (name, text) in enumerate(best.values):
            tried = {_number(variant.values[number][1]) for variant in self.variants}
            value = _number(text)
            known = sorted(other for other in tried if other is not None)
            if value is None or len(known) < max(2, len(tried)) or name == "train.seed":
                continue  # one value, values that are no numbers, or numbers without an order
            for end, largest, more in (
                (known[-1], "largest", "larger"),
                (known[0], "smallest", "smaller"),
            ):
                if value == end:
                    notes.append(
                        f"{text} is the {largest} {name} of this sweep; a {more} one may be better."
                    )
        return notes


def read_grid(profile: Path, overrides: Sequence[str]) -> Grid:
    """The variants of a profile and --set options.

    Raises:
        PipelineError: Nothing is swept, or a value or field does not fit.
    """
    fixed: list[str] = []
    swept: dict[str, list[str]] = {}
    for override in overrides:
        name, values = _values(override)
        if len(values) > 1:
            swept[name] = values
        else:
            fixed.append(override)
    if not swept:
        raise PipelineError(
            "no setting has several values, so there is nothing to compare",
            "Give one or more, for example --set train.learning_rate=1e-4,2e-4,5e-4.",
        )
    own = configs.load(profile, fixed)
    found: dict[str, Variant] = {}
    for places in product(*(range(len(values)) for values in swept.values())):
        chosen = zip(swept.items(), places, strict=True)
        variant = Variant(tuple((name, values[at]) for (name, values), at in chosen), places)
        config = configs.load(profile, [*fixed, *variant.overrides])
        found.setdefault(config.model_dump_json(), variant)
    for name in swept:
        _check_field(name)
    start = tuple(
        next(
            (i for i, v in enumerate(vs) if configs.load(profile, [*fixed, f"{n}={v}"]) == own),
            (len(vs) - 1) // 2,
        )
        for n, vs in swept.items()
    )
    return Grid(tuple(fixed), tuple(swept), tuple(found.values()), start)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _values(override: str) -> tuple[str, list[str]]:
    """Name and values of one --set; one value if it cannot be read as several."""
    import yaml

    name, _, text = override.partition("=")
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        return name.strip(), [text]  # a run reports it
    return name.strip(), [v if isinstance(v, str) else json.dumps(v) for v in values]


def _check_field(name: str) -> None:
    """Report a field that train does not read: its values would compare different data."""
    section, _, field = name.partition(".")
    if section not in TRAIN.reads:
        readers = [s.name for s in PIPELINE if {section, f"{section}.{field}"} & {*s.reads}]
        who = f"stage {' and '.join(readers)} reads it" if readers else "no cache key contains it"
        raise PipelineError(
            f"{name} can't be swept: {who}, and only settings of the training can be swept",
            "Sweep fields of train. Compare other settings by one `finetune run` each and "
            "`finetune diff`.",
        )
    keyed = View(configs.check({}), TRAIN.reads, TRAIN.name).slice()
    if f"{section}.{field.partition('.')[0]}" not in keyed:
        raise PipelineError(
            f"{name} can't be swept: it does not change the result of a training",
            f"Give {name} one value.",
        )
