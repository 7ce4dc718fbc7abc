"""All kinds of untouched texts. To add one, add a file and a line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tasks.core.errors import PipelineError
from tasks.core.rows.hash_rank import keyed_rank
from tasks.evaluation.untouched import general_instructions, other_languages, untouched_code


@dataclass(frozen=True)
class ProbeTexts:
    """One kind of untouched texts.

    Attributes:
        name: Of its row set.
        read: Text id -> text, of all there are. Raises PipelineError where they can't be read.
    """

    name: str
    read: Callable[[], Mapping[str, str]]


PROBES = (
    ProbeTexts("untouched code", untouched_code.texts),
    ProbeTexts("other languages", other_languages.texts),
    ProbeTexts("general instructions", general_instructions.texts),
)
PROBE_NAMES = frozenset(probe.name for probe in PROBES)


def choose_texts(count: int | None, seed: int) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Texts of each kind by its name, and a sentence for each kind that can't be measured.

    Args:
        count: At most so many of each kind; None: all.
        seed: Another seed, another choice.
    """
    chosen: dict[str, dict[str, str]] = {}
    missing = []
    for probe in PROBES if count != 0 else ():
        try:
            texts = probe.read()
        except PipelineError as error:
            missing.append(
                f"Forgetting, by the loss on {probe.name}, could not be measured: {error.problem}. "
                f"{error.remedy}. Then: finetune rerun evaluate"
            )
            continue
        ranked = sorted(texts, key=lambda name: (keyed_rank(name, seed), name))[:count]
        chosen[probe.name] = {name: texts[name] for name in sorted(ranked)}
    return chosen, tuple(missing)
