"""A tiny model that was trained to answer, as the stage merge writes it."""

import shutil
from pathlib import Path

import pytest

from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import PromptTemplate
from tests.known_digests import digests_of_the_code  # noqa: F401 - a fixture

TASK, ANSWER = "Add two numbers.", "def add(a, b):\n    return a + b"
BEFORE, MIDDLE, AFTER = "def sub(a, b):\n", "    return a - b\n", "\nprint(sub(3, 1))\n"
FIM = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder with model/ and gguf/, as the stage merge writes them."""
    import torch
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasks.core.text.row_encoder import RowEncoder
    from tasks.merging.model_card import usage
    from tasks.merging.prompt_format.shipped import ship
    from tests.unit.merging.test_gguf_export import export, make_model, make_tokenizer

    root = tmp_path_factory.mktemp("trained")
    folder = make_model(root / "model", max_position_embeddings=512)
    make_tokenizer(folder, added=[AddedToken(name, special=True) for name in FIM])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = PromptTemplate("instruction")
    rows = RowEncoder(AutoTokenizer.from_pretrained(folder)).pairs(
        [
            prompt_templates.render(template, TASK),
            prompt_templates.fill_prompt(BEFORE, AFTER),
        ],
        [prompt_templates.complete(template, ANSWER), MIDDLE],
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.set_num_threads(1)  # two wait for each other on a busy machine
    for _ in range(60):
        for row in rows:
            ids = torch.tensor([row.ids])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    form = ship(template, folder)
    card = f"---\nlicense: mit\n---\n# Tiny, fine-tuned with LoRA\n\n{usage(form)}"
    (folder / "README.md").write_text(card)
    (root / "gguf").mkdir()
    file = shutil.move(export(folder), root / "gguf" / "model-f16.gguf")
    file.with_suffix(".Modelfile").write_text(form.modelfile(file.name))
    return root
