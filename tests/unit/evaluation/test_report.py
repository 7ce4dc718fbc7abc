import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tasks.core.cache.manifest import Manifest
from tasks.core.text.durations import duration
from tasks.evaluation.gate import verdict as gate
from tasks.evaluation.report import lineage, plots
from tasks.evaluation.report import page as report
from tasks.evaluation.report.other_stages import OtherStages, read_other_stages
from tasks.evaluation.report.side_by_side import MAX_SHOWN, visible
from tasks.evaluation.report.subject import Subject, read_subject
from tasks.evaluation.report.training_facts import GROUPS, training_facts
from tasks.evaluation.results import Evaluation
from tasks.training.report.metrics_log import Counters
from tests.conftest import REPOSITORY
from tests.unit.evaluation.examples import evaluation, problems

HOSTILE = '</pre><script>alert(1)</script><img src="https://evil.example/x" onerror=alert(2)>'
CURVE = [{"step": s, "loss": 3 - s / 50} for s in range(2, 102, 2)]
FUNNEL = {
    "rows": 200,
    "kept": 150,
    "rejected": 50,
    "reasons": [{"rule": "too_short", "rows": 50, "share": 0.25, "only_this_rule": 40}],
}
SHOWN = OtherStages(CURVE, {"tokens_per_s": 1234.5, "device": "cpu"}, FUNNEL)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []
        self.open = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "polyline", "line", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page(found: Evaluation, shown=SHOWN, **options) -> str:
    return report.html(found, gate.decide(found, resamples=200), shown, **options)


def tags(text: str) -> Tags:
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    return parser


def test_text_of_a_model_is_never_markup():
    found = evaluation(tried=problems(1, 1, 0, 0, text=HOSTILE), text=HOSTILE)
    text = page(found, subject=Subject(HOSTILE, (("Model", HOSTILE),)))
    assert not {"script", "img"} & {tag for tag, _ in tags(text).found}
    assert "&lt;script&gt;alert(1)" in text


def test_the_page_asks_for_nothing_from_outside():
    text = page(evaluation(tried=problems(1, 1, 1, 1)))
    for tag, attributes in tags(text).found:
        assert tag not in ("link", "script", "iframe", "object", "base"), tag
        assert not {"src", "href", "srcset"} & set(attributes), tag
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text
    assert "default-src 'none'" in text


def test_the_verdict_comes_first():
    body = page(evaluation()).partition("<main>")[2]
    assert re.sub(r"<[^>]+>", " ", body).split()[0] == "Improved"


def test_flips_come_before_samples_and_wins_before_losses():
    text = page(evaluation(tried=problems(1, 1, 1, 1)))
    places = [text.index(f"<b>{label}</b>") for label in ("fail → pass", "pass → fail", "held-out")]
    assert places == sorted(places)


def test_an_answer_that_was_broken_off_is_not_said_to_reach_the_limit():
    found = evaluation(tried=problems(1, 0, 0, 0))  # 5 tokens, not ended
    for limit, words in ((5, "cut at the limit"), (9, "broken off")):
        text = page(replace(found, settings={"max_new_tokens": limit}))
        (tuned,) = re.findall(r"<b>Tuned</b>\s+· pass · 5 tokens\s+· (.*?)</figcaption>", text)
        assert tuned == words


def test_what_is_left_out_of_the_page_is_counted():
    text = page(evaluation(tried=problems(won=11, lost=0, both=0, none=0)))
    assert text.count("<b>fail → pass</b>") == MAX_SHOWN
    assert "3 more are in generations.parquet" in text


def test_characters_that_hide_or_reorder_are_spelled_out():
    assert visible("a\u202eb\u200b\x1b[0m\n\tc") == "a⟨U+202E⟩b⟨U+200B⟩⟨U+001B⟩[0m\n\tc"


def test_a_long_text_is_cut_and_says_so():
    assert visible("x" * 5_000).endswith("… 1,000 more characters")


def test_the_page_stands_without_the_extras_of_other_stages():
    text = page(Evaluation(()), OtherStages())
    assert "Nothing was measured." in text
    assert "Training" not in text
    tags(text)


def origin(**changed):
    values = {
        "stage": "train",
        "key": "0123456789ab",
        "line": "20 steps",
        "seconds": 65.0,
        "created": "2026-01-01T00:00:00+00:00",
        "commit": "abc",
        "parts": (("train.seed", "7"), ("version of torch", HOSTILE)),
    }
    return lineage.LineageEntry(**{**values, **changed})


def test_the_data_card_names_all_splits_and_the_licences_of_the_training_rows():
    shown = OtherStages(licences=(("MIT", 3), ("", 1)))
    text = page(evaluation(), shown)
    for words in (
        ">train</th><td>1,000</td><td>50,000</td>",
        "<span>MIT</span>",
        "75.0 %",
        "<span>unknown</span>",
    ):
        assert words in text.replace("\n", "")


def test_the_lineage_tells_the_parts_of_the_keys():
    text = page(evaluation(), OtherStages(lineage=(origin(),)))
    assert "<b>train</b> <code>0123456789ab</code>" in text
    assert "<dt>train.seed</dt><dd>7</dd>" in text
    assert "1 min 5 s" in text
    assert "script" not in {tag for tag, _ in tags(text).found}


def test_the_curve_says_what_the_test_split_says():
    words = " ".join(page(evaluation(held_out=-0.3)).split())
    assert re.search(r"test split, which training never sees: 1\.\d+ before, 1\.\d+ after", words)


def test_answers_on_which_both_models_agree_are_shown_last_each_suite_once():
    tried = problems(1, 0, 9, 0) + tuple(
        replace(p, suite="own", problem_id=f"own/{p.problem_id}") for p in problems(0, 0, 0, 9)
    )
    text = page(evaluation(tried=tried))
    assert text.index("<b>held-out</b>") < text.index("<b>both pass</b>")
    assert text.count("<b>both pass</b>") == text.count("<b>both fail</b>") == 2


def test_torn_extras_leave_their_place_empty(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    (tmp_path / "funnel.json").write_text("[1, 2]")
    shown = read_other_stages(
        {
            "train.metrics": tmp_path / "metrics.jsonl",
            "train.training": tmp_path / "none",
            "filter.funnel": tmp_path / "funnel.json",
        }
    )
    assert shown == OtherStages([{"step": 1, "loss": 2.0}], {}, {})


def test_what_could_not_be_measured_is_said():
    assert "the tokenizer lacks the tokens" in page(evaluation())


def rendered(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def marked(found: Evaluation, shown=SHOWN, **options) -> str:
    return report.markdown(found, gate.decide(found, resamples=200), shown, **options)


def test_markdown_has_the_numbers_of_the_page():
    text = marked(evaluation(tried=problems(1, 1, 1, 1)), subject=Subject("a | b <b>"))
    assert text.startswith("# Improved: a \\| b \\<b\\>\n")
    assert "| too short | 50 | 25.0 % |" in text
    assert "loss, held-out, 12 projects" in text
    html = rendered(text)
    assert html.count("<table>") == 5  # compared, also measured, rules, splits, training
    for row in re.findall(r"^\|.*$", text, re.M):
        assert row.endswith("|")


def test_markdown_shows_flips_first_with_prompts_answers_and_verdicts():
    html = rendered(marked(evaluation(tried=problems(4, 1, 1, 1))))
    kinds = re.findall(r"<h3>(.*?): ", html)
    assert kinds[:5] == ["Fail → pass"] * 3 + ["Pass → fail", "Held-out"]
    assert "Base, wrong, 5 tokens" in html
    assert html.count("def f():") == 6  # the prompt of each problem that is shown
    assert "More answers" in html


@given(st.text(alphabet=st.sampled_from(list("`~<>&|[]()!#* \n\tax\\\"'")), max_size=60))
@example(HOSTILE)
@example("```\n</code>\n~~~\n" + HOSTILE)
@example("````\n![x](javascript:alert(1))")
def test_text_of_a_model_is_never_markup_in_markdown(text):
    found = evaluation(tried=problems(1, 1, 0, 0, text=text), text=text)
    sample = replace(found.samples[0], base=replace(found.samples[0].base, detail=text))
    tokens = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .parse(marked(replace(found, samples=(sample,)), subject=Subject(text)))
    )
    assert not [t for t in tokens if t.type == "html_block"]
    inline = [child for t in tokens for child in t.children or ()]
    assert not {"html_inline", "image", "link_open"} & {child.type for child in inline}
    shown = [t.content for t in tokens if t.type == "fence"]
    assert shown.count((text or "(nothing)") + "\n") == 5  # two flips, and the tuned sample


def test_lineage_in_markdown_has_the_parts_of_the_keys():
    text = marked(evaluation(), OtherStages(lineage=(origin(),)))
    assert "- train: train.seed 7; version of torch" in text
    assert "<script>" not in rendered(text)


def test_an_interval_in_characters_is_where_it_is_in_the_picture():
    span = plots.Span(left=60.0, width=20.0, dot=70.0, margin=40.0)
    assert plots.text_bar(span) == "`··········┊·│··━━●━━━····`"
    assert plots.text_bar(None) == ""


def test_problems_that_the_sandbox_failed_are_counted_on_the_page():
    tried = tuple(
        replace(p, tuned=(replace(p.tuned[0], outcome="infra"),)) for p in problems(2, 0, 0, 0)
    )
    found = evaluation(tried=(*tried, *problems(0, 0, 3, 0)))
    assert "2 of 5 problems of humaneval (prompt) are left out: the sandbox failed" in page(found)


def test_the_page_of_the_same_evaluation_is_the_same():
    assert page(evaluation()) == page(evaluation())


def test_the_curve_stays_inside_its_frame_and_skips_what_is_no_number():
    records = [{"step": s, "loss": 2.0 + (90 if s == 3 else 0)} for s in range(1, 200)]
    records += [{"step": 200, "loss": float("nan")}, {"step": 201, "loss": None}, {"note": "x"}]
    curve = plots.loss_curve(records)
    places = [tuple(map(float, p.split(","))) for p in curve.raw.split()]
    assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y in places)
    assert len(places) == 199


def test_intervals_of_a_metric_share_one_scale_which_is_stated():
    found = gate.decide(evaluation(held_out=-0.3, probe=-0.1), resamples=200)
    losses = [c for c in found.comparisons if c.name == "loss"]
    reach = plots.reach(losses)
    spans = [plots.span(c, reach) for c in losses]
    assert [s.dot - 50 for s in spans] == [
        pytest.approx(-50 * c.difference / reach, abs=0.01) for c in losses
    ]
    text = report.html(evaluation(held_out=-0.3, probe=-0.1), found, OtherStages())
    assert f"<span>−{reach:.3f} nats</span><span>+{reach:.3f} nats</span>" in text


def test_the_report_names_model_profile_data_date_and_hardware(tmp_path):
    paths = {}
    for stage, config in (
        ("base", {"base.path": "/models/tiny", "base.gguf": None}),
        ("ingest", {"ingest.sources": [{"name": "team"}, {"kind": "git", "path": "~/src/app"}]}),
    ):
        folder = tmp_path / stage
        folder.mkdir()
        Manifest(stage, "k" * 64, {"config": config}, {}, {}, {"line": "42 of it"}, 1.0).write(
            folder
        )
        paths[f"{stage}.rows"] = folder / "rows"
    found = read_subject(paths, "/home/me/my.yaml", "cpu")
    assert found.title == "tiny tuned on team, app"
    facts = dict(found.facts)
    assert (facts["Model"], facts["Data"]) == ("tiny (42 of it)", "team, app (42 of it)")
    assert (facts["Profile"], facts["Date"][:2]) == ("my", "20")
    assert "CPU" in facts["Hardware"]
    text = page(evaluation(), subject=found)
    assert "<title>Improved: tiny tuned on team, app</title>" in text
    for name, value in found.facts:
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
        assert f"- {name}: " in marked(evaluation(), subject=found)


def test_fields_of_the_training_are_named_and_grouped():
    training = {"step": 20, "tokens": 40_639, "first_loss": 2.0, "step_path": "fast", "new_one": 1}
    assert training_facts(training | {"learning_rate": 4.47e-4}) == [
        ("Length", [("optimizer steps", "20"), ("peak learning rate", "0.000447")]),
        ("Data", [("tokens seen", "40,639")]),
        ("Loss", [("first logged loss, nats per token", "2")]),
        ("Machine", [("training step", "fast")]),
        ("Other", [("new one", "1")]),
    ]


def test_every_field_that_a_training_reports_has_a_name():
    source = (REPOSITORY / "tasks/training/process.py").read_text()
    source += (REPOSITORY / "tasks/training/report/facts.py").read_text()
    source += (REPOSITORY / "tasks/training/report/results.py").read_text()
    written = set(re.findall(r'^ {8}"(\w+)":', source, re.M)) | {f.name for f in fields(Counters)}
    named = {name for group in GROUPS.values() for name in group}
    assert (
        written
        - named
        - {"validation", "loss", "validation_loss", "step", "token_accuracy"}
        - {
            "validation_loss_before",
            "validation_token_accuracy",
        }
        == set()
    )


def test_tables_have_captions_and_headers_with_a_scope():
    for tag, attributes in tags(page(evaluation(tried=problems(1, 1, 1, 1)))).found:
        assert tag != "th" or attributes.get("scope") in ("col", "row", "rowgroup")
    text = page(evaluation(tried=problems(1, 1, 1, 1)))
    assert text.count("<caption>") == text.count("<table")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_all_lines_have_a_contrast_of_three_and_all_text_of_four_and_a_half(mode):
    style = (report.TEMPLATES / "report.css").read_text()
    style += (REPOSITORY / "flows/sweep/templates/sweep.css").read_text()
    blocks = dict.fromkeys(("light", "dark"), "")
    for part in re.split(r"(?m)^(?=@media|\.|h1|\*|:root)", style):
        blocks["dark" if "scheme: dark" in part else "light"] += part
    found = {}
    for name, value in re.findall(r"(--\w+|line\d) ?[:{](?: color:)? ?(#\w{6})", blocks[mode]):
        found[name] = value
    low = {n: round(contrast(v, found["--paper"]), 2) for n, v in found.items()}
    assert {n: c for n, c in low.items() if c < 3 and n not in ("--paper", "--raised")} == {}
    assert min(low["--ink"], low["--soft"], low["--good"], low["--bad"], low["--unsure"]) >= 4.5
    assert len([n for n in found if n.startswith("line")]) == 5
    assert "opacity" not in style


def test_better_is_drawn_to_the_right_for_losses_too():
    found = gate.decide(evaluation(held_out=-0.3), resamples=200)
    loss, accuracy, *_ = (plots.span(c, 1.0) for c in found.comparisons)
    assert loss.dot > 50
    assert accuracy.dot > 50
    assert loss.margin < 50


def test_ticks_are_round_and_cover_the_range():
    assert plots.nice_ticks(0.93, 2.2) == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert plots.nice_ticks(0, 2000) == [0, 500, 1000, 1500, 2000]


def test_no_line_ends_between_a_number_and_its_unit():
    text = page(evaluation())
    assert re.search(r"95\N{NO-BREAK SPACE}% interval", text)
    assert not re.search(r'<p class="(?:reason|note)">[^<]*\d (?:%|nats|points)', text)


def test_the_labels_of_an_axis_have_the_same_number_of_decimals():
    curve = plots.loss_curve([{"step": 1, "loss": 2.6}, {"step": 2, "loss": 4.4}])
    assert [tick.label for tick in curve.y] == ["2.5", "3.0", "3.5", "4.0", "4.5"]


def test_durations_read_like_speech():
    assert [duration(s) for s in (3.21, 42, 125, 9_660)] == [
        "3.2 s",
        "42 s",
        "2 min 5 s",
        "2 h 41 min",
    ]
