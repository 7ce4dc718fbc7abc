"""Rules of the house that the code itself must keep."""

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tasks.core.cache.code_digest import closure
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.settings.config import Config, View, check
from tasks.core.settings.fields import is_keyed
from tasks.core.stage import Stage, resolve
from tasks.pipeline import PIPELINE, checked

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = [stage.name for stage in PIPELINE]
PACKAGES = {stage.name: stage.run.split(".")[1] for stage in PIPELINE}


SOURCES = [path for top in ("tasks", "flows") for path in sorted((REPOSITORY / top).rglob("*.py"))]
MAX_MODULES = 12
MAX_LINES = 250
# modules over MAX_LINES, each with the reason why it is one module
LONG = {
    "flows/orchestration/server_checks.py": "one check after another",
    "tasks/core/artifacts/champion.py": "history, link and rule of promotion change together",
    "tasks/core/cache/execute.py": "the order of its steps is what makes a kill harmless",
    "tasks/core/settings/config.py": "Config and the view of it that a stage gets",
    "tasks/core/settings/ingest.py": "all fields of a stage's section",
    "tasks/core/text/prompt_templates.py": "the four kinds of templates, side by side",
    "tasks/filtering/report/funnel.py": "one pass over the scores counts everything",
    "tasks/ingestion/licenses.py": "tables of names and texts of licenses",
    "tasks/training/loop.py": "one loop with its log, checkpoints and stops",
}
# names of modules that said nothing about their content; a new module may not be called so
RETIRED = frozenset(
    """
    answering batching bridge card changes check choice closure clock continuing counters
    dealing endings expected flat footprint garbage guarding health hours job judging
    keys listing marks measuring memo memory network overlap own_sets pages pair picking
    picture pictures pieces plain planning preflight preparing privacy probes remembering
    running schemas sets shapes shards sizes slots space spool spreading starting stepping
    stopping tables team telling troubles trust trying turns upkeep verdicts visible vocabulary
    watching ways whatif windows words writing
    """.split()  # noqa: SIM905  # a list of sixty strings is longer than this file
)


def module_of(path):
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def imports_of(path):
    """Modules that a file imports, wherever the import is."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


LAYERS = (  # from the top; a module imports its own layer and those below
    "flows.cli",
    "flows.commands",
    "flows.finetune",
    "flows.orchestration",
    "flows",
    "tasks.pipeline",
    "tasks.core",  # listed before the stages, which are all of tasks that is left
    "tasks",
)


def layer_of(module):
    """0 is the lowest layer."""
    name = next(n for n in LAYERS if module == n or module.startswith(n + "."))
    order = [n for n in LAYERS if n != "tasks.core"] + ["tasks.core"]
    return len(order) - order.index(name)


def test_imports_go_down_only():
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imports_of(path)
        if name.startswith(("tasks", "flows")) and layer_of(name) > layer_of(module)
    ]
    assert wrong == []


def test_stage_packages_import_core_and_themselves_only():
    wrong = []
    for package in PACKAGES.values():
        own = ("tasks.core", f"tasks.{package}")
        for path in (REPOSITORY / "tasks" / package).rglob("*.py"):
            for name in imports_of(path):
                if name.startswith(("tasks", "flows")) and not name.startswith(own):
                    wrong.append(f"{path.name} imports {name}")
    assert wrong == []


def test_imports_form_no_cycle():
    edges = {
        module: {name for name in imports_of(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    while leaves := {module for module, targets in edges.items() if not targets & edges.keys()}:
        edges = {module: targets for module, targets in edges.items() if module not in leaves}
    assert edges == {}


def test_only_the_orchestration_imports_prefect():
    users = {
        module
        for module, path in MODULES.items()
        if any(name.split(".")[0].startswith("prefect") for name in imports_of(path))
    }
    assert {module for module in users if not module.startswith("flows.orchestration.")} == set()


def test_no_folder_has_more_modules_than_a_reader_can_survey():
    count = Counter(path.parent for path in SOURCES if path.name != "__init__.py")
    assert {folder.name: n for folder, n in count.items() if n > MAX_MODULES} == {}


def test_class_names_are_unique():
    names = Counter(
        node.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, n in names.items() if n > 1] == []


def test_retired_module_names_do_not_return():
    assert [module for module in MODULES if module.rpartition(".")[2] in RETIRED] == []


def test_long_modules_have_a_reason():
    lines = {
        path.relative_to(REPOSITORY).as_posix(): len(path.read_text().splitlines())
        for path in SOURCES
    }
    assert {name for name, n in lines.items() if n > MAX_LINES} == set(LONG)


@pytest.mark.parametrize("stage", PIPELINE, ids=NAMES)
def test_run_and_sources_of_a_stage_exist(stage):
    assert callable(stage.load_run())
    assert stage.sources is None or callable(resolve(stage.sources))


def test_pipeline_with_an_unknown_input_is_refused():
    with pytest.raises(ValueError, match=r"reads a\.x, which no earlier stage makes"):
        checked([Stage("b", "m:f", outputs=("y",), inputs=("a.x",))])


def test_pipeline_with_two_stages_of_one_name_is_refused():
    with pytest.raises(ValueError, match="two stages"):
        checked([Stage("a", "m:f", outputs=("x",)), Stage("a", "m:f", outputs=("x",))])


def test_flow_calls_the_stages_in_the_order_of_the_pipeline():
    tree = ast.parse((REPOSITORY / "flows/finetune.py").read_bytes())
    called = [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "stage"
    ]
    assert called == NAMES


def test_names_offered_by_the_flow_are_those_of_the_pipeline():
    script = "from flows.finetune import StageName; print(StageName.__args__)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ast.literal_eval(out.stdout) == tuple(NAMES)


def fields():
    for section, outer in Config.model_fields.items():
        for name, field in outer.annotation.model_fields.items():
            yield section, name, field


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # "changed" is no value of its type
@pytest.mark.parametrize(
    ("section", "name", "field"), list(fields()), ids=[f"{s}.{n}" for s, n, _ in fields()]
)
def test_a_setting_enters_the_keys_of_exactly_the_stages_that_read_it(section, name, field):
    config = check({})
    model = getattr(config, section)
    changed = config.model_copy(update={section: model.model_copy(update={name: "changed"})})
    moved = set()
    for stage in PIPELINE:
        before = View(config, stage.reads, stage.name).slice()
        if View(changed, stage.reads, stage.name).slice() != before:
            moved.add(stage.name)
    readers = {s.name for s in PIPELINE if {section, f"{section}.{name}"} & set(s.reads)}
    assert moved == (readers if is_keyed(field) and section != "hardware" else set())


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(
        REPOSITORY / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def digests(root):
    return {stage.name: closure(stage.run, DigestCache(None), root) for stage in PIPELINE}


def test_comment_in_every_module_changes_no_stage(copied):
    before = digests(copied)
    for path in (copied / "tasks").rglob("*.py"):
        path.write_text(path.read_text() + "\n# a remark\n")
    assert digests(copied) == before


def test_changed_helper_changes_exactly_the_stages_that_use_it(copied):
    before = digests(copied)
    path = copied / "tasks/core/text/prompt_templates.py"
    path.write_text(path.read_text() + "\n\nEXTRA = 1\n")
    after = digests(copied)
    users = {name for name in NAMES if "tasks.core.text.prompt_templates" in before[name]}
    assert {name for name in NAMES if before[name] != after[name]} == users
    assert "prompt" in users
    assert "ingest" not in users


def test_every_profile_is_valid_and_says_hardware_what_was_measured_and_command():
    from flows import profiles
    from tasks.core.settings import config as configs

    for name in profiles.names():
        path = profiles.locate(name)
        configs.load(path)
        head = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert any("hardware" in line for line in head), name
        assert any("measured" in line and re.search(r"\d", line) for line in head), name
        (line,) = (line for line in head if "command" in line)
        assert re.search(rf"finetune run --profile {name}\b", line), name


def test_recipe_profile_has_the_original_numbers():
    from flows import profiles
    from tasks.core.settings import config as configs

    train = configs.load(profiles.locate("stable_code_3b_recipe")).train
    assert (train.lora_rank, train.lora_alpha, train.lora_dropout) == (8, 32, 0.05)
    assert (train.batch_rows, train.batch_tokens, train.warmup_steps) == (4, None, 20)
    assert (train.max_steps, train.learning_rate, train.weight_decay) == (2000, 2e-5, 0.01)
    assert (train.quantization, train.optimizer, train.log_every) == ("nf4", "auto", 2)


def test_settings_classes_are_data_without_methods_that_a_stage_could_call():
    allowed = set(dir(check({}).hardware.__class__.__mro__[1]))
    for section in Config.model_fields:
        model = type(getattr(check({}), section))
        own = {n for n, v in vars(model).items() if callable(v) and not n.startswith("_")}
        assert own - allowed == set(), section
