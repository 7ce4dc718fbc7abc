import pytest

from tasks.core.errors import PipelineError
from tasks.core.settings.config import (
    Config,
    View,
    check,
    load,
)
from tasks.core.settings.fields import is_keyed


def profile(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_unknown_field_offers_the_nearest_name():
    with pytest.raises(PipelineError, match=r"hardware\.vram: unknown field") as error:
        check({"hardware": {"vram": 9}})
    assert "hardware.vram_gib" in error.value.remedy


def test_unknown_section_offers_the_nearest_name():
    with pytest.raises(PipelineError, match="trian: unknown section") as error:
        check({"trian": {}})
    assert "train" in error.value.remedy


def test_out_of_range_value_names_field_bound_and_value():
    with pytest.raises(PipelineError, match=r"hardware\.vram_gib.*greater than 0.*-1"):
        check({"hardware": {"vram_gib": -1}})


def test_all_errors_are_told_at_once():
    with pytest.raises(PipelineError) as error:
        check({"hardware": {"vram_gib": -1, "wrokers": 2}})
    assert "vram_gib" in error.value.problem
    assert "wrokers" in error.value.problem


def test_override_replaces_a_value_of_the_profile(tmp_path):
    path = profile(tmp_path, "hardware:\n  workers: 3\n")
    assert load(path, ["hardware.workers=5"]).hardware.workers == 5


def test_override_without_a_field_is_refused(tmp_path):
    with pytest.raises(PipelineError, match=r"is not section\.field=value"):
        load(profile(tmp_path, ""), ["hardware=5"])


def test_profile_that_is_not_yaml_names_the_line(tmp_path):
    with pytest.raises(PipelineError, match="not YAML at line 2"):
        load(profile(tmp_path, "hardware:\n\tworkers: 3\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {seed: 1}\nhardware: {workers: 1}\ntrain: {lora_rank: 4}\n", "line 3: train"),
        ("train:\n  seed: 1\n  seed: 2\n", "line 3: seed"),
        ("ingest:\n  sources:\n  - {kind: files, kind: folder}\n", "line 3: kind"),
    ],
)
def test_key_that_stands_twice_in_a_profile_is_an_error(tmp_path, text, said):
    path = tmp_path / "twice.yaml"
    path.write_text(text)
    with pytest.raises(PipelineError, match=said):
        load(path)


def test_yaml_tags_that_would_run_code_are_refused(tmp_path):
    with pytest.raises(PipelineError, match="not YAML"):
        load(profile(tmp_path, "hardware: !!python/object/apply:os.getcwd []\n"))


def test_reading_an_undeclared_section_raises_with_the_fix():
    view = View(check({}), ("filter",), "filter")
    with pytest.raises(AttributeError, match='add "train" to `reads`'):
        _ = view.train


def test_reading_an_undeclared_field_raises_with_the_fix():
    view = View(check({}), ("prompt.template",), "evaluate")
    assert view.prompt.template
    with pytest.raises(AttributeError, match=r'add "prompt\.test_share" to `reads`'):
        _ = view.prompt.test_share


def test_hardware_is_readable_and_in_no_key():
    view = View(check({"hardware": {"workers": 7}}), ("filter",), "filter")
    assert view.hardware.workers == 7
    assert not any(name.startswith("hardware") for name in view.slice())


def every_field():
    for section, field in Config.model_fields.items():
        for name, inner in field.annotation.model_fields.items():
            yield section, name, inner


def test_every_setting_has_a_description():
    assert [f"{s}.{n}" for s, n, field in every_field() if not field.description] == []


def test_unkeyed_settings_stay_out_of_the_slice():
    view = View(check({}), tuple(s for s in Config.model_fields if s != "hardware"))
    unkeyed = {f"{s}.{n}" for s, n, field in every_field() if not is_keyed(field)}
    assert unkeyed
    assert not unkeyed & set(view.slice())


def test_unknown_field_inside_a_source_offers_the_nearest_name():
    with pytest.raises(PipelineError) as error:
        check({"ingest": {"sources": [{"kind": "files", "pth": "x"}]}})
    assert "path" in error.value.remedy


def test_unknown_kind_of_source_lists_the_kinds():
    with pytest.raises(PipelineError) as error:
        check({"ingest": {"sources": [{"kind": "flies", "path": "x"}]}})
    assert "files, huggingface, packages, folder, git" in error.value.remedy


def test_off_is_accepted_where_yaml_reads_it_as_false(tmp_path):
    profile = tmp_path / "profile.yaml"
    profile.write_text("train: {fast_path: off}\n")
    assert load(profile).train.fast_path == "off"
    assert load(profile, ["train.fast_path=off"]).train.fast_path == "off"
    with pytest.raises(PipelineError, match=r"train.fast_path: .*it is True"):
        load(profile, ["train.fast_path=on"])


@pytest.mark.parametrize("name", ["ingest.sources[0].path", "ingest.sources.0.path"])
def test_an_override_reaches_into_a_list(tmp_path, name):
    path = profile(tmp_path, "ingest: {sources: [{kind: folder, path: a, rows: [files]}]}\n")
    source = load(path, [f"{name}=b"]).ingest.sources[0]
    assert (source.path, source.rows) == ("b", ("files",))


def test_an_override_of_an_item_that_is_not_there_names_both_numbers(tmp_path):
    path = profile(tmp_path, "ingest: {sources: [{kind: folder, path: a}]}\n")
    with pytest.raises(PipelineError, match=r"no item '1', the list has 1"):
        load(path, ["ingest.sources[1].path=b"])
