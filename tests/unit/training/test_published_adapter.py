"""The adapter names its base, so that PEFT finds it on the hub."""

import os
import shutil
import subprocess
import sys

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD = """
import sys
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1])
print(model.peft_config["default"].base_model_name_or_path, model.peft_config["default"].revision)
"""


@pytest.mark.slow
def test_peft_loads_the_adapter_on_the_base_of_its_commit(tiny_model, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tasks.training.lora import save_adapter

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = get_peft_model(
        base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    save_adapter(adapted, tmp_path / "adapter", f"owner/model@{COMMIT}")
    # the hub's cache as a download of that commit leaves it; no other commit is there
    cache = tmp_path / "hub" / "hub" / "models--owner--model"
    shutil.copytree(tiny_model, cache / "snapshots" / COMMIT)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "adapter")],
        env={**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["owner/model", COMMIT]
