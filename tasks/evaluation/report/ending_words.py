"""Endings in words: whether the model learned to end its answers, apart from their content."""

from tasks.evaluation.metrics.ending_metrics import ENDING_LOSS
from tasks.evaluation.metrics.ends_by_itself import ENDS_BY_ITSELF
from tasks.evaluation.metrics.protocol import row_sums
from tasks.evaluation.results import HELD_OUT, Attempts, Evaluation

_MOVED = 0.1  # smaller changes are not mentioned


def sentence(evaluation: Evaluation) -> str:
    """How often both models end an answer, and their loss on the ends of held-out rows; "" where
    neither was measured."""
    base: list[Attempts] = [(s.base,) for s in evaluation.samples]
    tuned: list[Attempts] = [(s.tuned,) for s in evaluation.samples]
    for problem in evaluation.problems:
        if ENDS_BY_ITSELF.is_shown(problem.style):
            base.append(problem.base)
            tuned.append(problem.tuned)
    said, how = [], "Endings"
    before, after = ENDS_BY_ITSELF.value(base), ENDS_BY_ITSELF.value(tuned)
    if before is not None and after is not None:
        if abs(after - before) > _MOVED:
            how = "Learned to stop" if after > before else "Forgot to stop"
        answers = sum(map(len, base))
        of = "1 answer" if answers == 1 else f"{answers:,} answers"
        said.append(f"ends by itself {100 * before:.0f} % → {100 * after:.0f} % of {of}")
    for rows in evaluation.row_sets:
        values = [ENDING_LOSS.value(sums) for sums in row_sums(rows.rows)]
        if rows.name == HELD_OUT and values[0] is not None and values[1] is not None:
            shown = " → ".join(ENDING_LOSS.scale.value(v) for v in values if v is not None)
            said.append(f"loss of end markers and EOS {shown}")
    if not said:
        return ""
    return f"{how}: {', '.join(said)}. The verdict is about the content, without endings."
