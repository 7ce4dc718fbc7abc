"""General instructions: short questions and requests of everyday life, with answers in plain words.

They show whether training on code costs the model its language. Written for this project; the file
lies beside this module, so that its content is part of the cache key.
"""

import json
from pathlib import Path

from tasks.evaluation.untouched.protocol import ProbeTexts

FILE = Path(__file__).with_name("general_instructions.jsonl")


def texts() -> dict[str, str]:
    """Number -> request and answer as one text, without a prompt template that training teaches."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {
        f"general/{number:03}": f"{row['instruction']}\n\n{row['answer']}\n"
        for number, row in enumerate(rows, 1)
    }


GENERAL_INSTRUCTIONS = ProbeTexts("general instructions", texts)
