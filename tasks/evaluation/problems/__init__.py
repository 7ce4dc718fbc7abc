"""Problem sets: HumanEval, the user's own sets, and how answers are graded."""
