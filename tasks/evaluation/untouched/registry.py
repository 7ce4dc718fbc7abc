"""All kinds of untouched texts. To add one, add a file and a line here."""

from tasks.core.errors import PipelineError
from tasks.core.rows.hash_rank import keyed_rank
from tasks.evaluation.untouched.general_instructions import GENERAL_INSTRUCTIONS
from tasks.evaluation.untouched.other_languages import OTHER_LANGUAGES
from tasks.evaluation.untouched.untouched_code import UNTOUCHED_CODE

PROBES = (UNTOUCHED_CODE, OTHER_LANGUAGES, GENERAL_INSTRUCTIONS)
PROBE_NAMES = frozenset(probe.name for probe in PROBES)


def choose_texts(count: int | None, seed: int) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Texts of each kind by its name, and a sentence for each kind that can't be measured.

    Args:
        count: Maximum number of each kind; None: all.
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
