import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.cli import main
from tasks.core.text import prompt_templates
from tasks.evaluation.generation import stream_answer
from tasks.evaluation.generation.sampling import GREEDY, Sampler, Sampling
from tasks.evaluation.generation.stream_answer import before_marker
from tests.unit.flows.test_champion import make, promote


def pieces(*texts):
    return list(enumerate(texts, 1))


def shown(marker, *texts):
    return "".join(text for _, text in before_marker(marker, pieces(*texts)))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("return a", "\n\n##", "# End", "\nmore"), "return a"),
        (("return a\n\n### En", "d"), "return a"),
        (("return a\n\n### En", "ough"), "return a\n\n### Enough"),
        (("# a\n", "\nb"), "# a\n\nb"),
        (("a\n\n",), "a\n\n"),
        (("### End",), ""),
    ],
)
def test_marker_and_the_empty_lines_before_it_are_not_shown(texts, expected):
    assert shown("### End", *texts) == expected


def test_without_a_marker_every_piece_is_passed_on_at_once():
    assert list(before_marker("", pieces("a", "\n", "###"))) == [
        (1, "a"),
        (2, "\n"),
        (3, "###"),
        (3, ""),
    ]


def test_text_is_held_back_no_longer_than_it_could_be_the_marker():
    assert [text for _, text in before_marker("### End", pieces("a#", "b", "c"))] == [
        "a",
        "#b",
        "c",
        "",
    ]


def test_temperature_draws_by_seed_and_top_p_cuts_the_tail():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    drawn, again = (
        [draw(logits, [0]) for _ in range(60)]
        for draw in (Sampler(Sampling(temperature=1.0, top_p=0.6, seed=1)) for _ in range(2))
    )
    assert set(map(tuple, drawn)) == {(0,), (1,)}
    assert again == drawn
    assert Sampler(GREEDY)(logits, [0]) == [0]


def greedy(folder, prompt, new=12):
    """What transformers' own greedy search writes."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt")
    written = model.generate(**ids, max_new_tokens=new, do_sample=False, pad_token_id=0)
    return tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


SHORT = ["--max-new-tokens", "12"]


def test_answer_of_a_model_folder_is_greedy_and_follows_the_template(
    small_profile, tiny_model, capsys
):
    options = ["--profile", str(small_profile), "--from", str(tiny_model), *SHORT]
    assert main(["try", "Add two numbers", *options, "--input", "1 and 2"]) == 0
    out, err = capsys.readouterr()
    prompt = prompt_templates.render("instruction", "Add two numbers", "1 and 2")
    wanted = greedy(tiny_model, prompt).partition("### End")[0]
    # a stream does not show the begin of a character whose end was not written
    assert out.rstrip("\n") == wanted.rstrip("\n\N{REPLACEMENT CHARACTER}")
    assert f"model {tiny_model} answers" in err
    assert "12 tokens" in err


def test_raw_text_is_continued_as_it_stands(small_profile, tiny_model, capsys):
    options = ["--profile", str(small_profile), "--from", str(tiny_model), *SHORT, "--raw"]
    assert main(["try", "def add(", *options]) == 0
    assert capsys.readouterr().out == greedy(tiny_model, "def add(") + "\n"


def test_champion_answers_where_there_is_one(small_profile, tiny_model, capsys):
    folder = make(small_profile)
    shutil.copytree(tiny_model, folder / "model")
    promote(small_profile)
    assert main(["try", "x", "--profile", str(small_profile), "--set", "train.seed=9", *SHORT]) == 0
    assert f"champion merge/{folder.name} answers" in capsys.readouterr().err


def test_adapter_in_a_folder_runs_on_the_base_of_the_settings(
    small_profile, tiny_model, tmp_path, capsys
):
    from peft import LoraConfig, get_peft_model

    merged = make(small_profile)
    base = next((merged.parents[1] / "base").iterdir())
    for name in ("weights", "tokenizer"):  # made-up outputs give way to real ones
        (base / f"{name}.txt").unlink()
        shutil.copytree(tiny_model, base / name)
    main(["adopt", "base", "--profile", str(small_profile)])
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    torch.manual_seed(0)
    tuned = get_peft_model(
        model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    )
    tuned.save_pretrained(tmp_path / "mine")
    options = ["--profile", str(small_profile), "--from", str(tmp_path / "mine"), *SHORT]
    assert main(["try", "x", *options]) == 0
    assert f"adapter {tmp_path / 'mine'} answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "problem", "remedy"),
    [
        (["--from", "/nowhere"], "/nowhere is neither", "Name the folder"),
        (["--from", "champion"], "no model is promoted", "finetune promote"),
        ([], "stage base has no artifact", "finetune run"),
        (["--temperature", "-1"], "temperature -1.0", "greedy"),
        (["--suffix", "b", "--input", "c"], "--input belongs to an instruction", "Leave one"),
    ],
)
def test_mistake_is_two_lines(small_profile, capsys, options, problem, remedy):
    assert main(["try", "x", "--profile", str(small_profile), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert problem in lines[0]
    assert remedy in lines[1]


def test_a_suffix_for_a_model_without_infilling_tokens_is_refused(
    small_profile, tiny_model, capsys
):
    options = ["--profile", str(small_profile), "--from", str(tiny_model), "--suffix", "b"]
    assert main(["try", "a", *options]) == 2
    *_, problem, remedy = capsys.readouterr().err.splitlines()
    assert "no tokens for infilling" in problem and "Leave --suffix out." in remedy


def test_prompt_that_leaves_no_room_is_refused(small_profile, tiny_model, capsys):
    options = ["--profile", str(small_profile), "--from", str(tiny_model)]
    assert main(["try", "word " * 3000, *options]) == 2
    *_, problem, remedy = capsys.readouterr().err.splitlines()
    assert "needs room to answer" in problem and remedy == "Shorten the text."


def test_character_of_several_tokens_is_shown_once_it_is_whole(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer.encode("日本")
    texts = [text for _, text in stream_answer.decoded(tokenizer, ids)]
    assert "".join(texts) == "日本"
    assert "\ufffd" not in "".join(texts)
    assert len(ids) > 2
