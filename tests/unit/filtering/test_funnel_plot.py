from xml.etree import ElementTree

from tasks.filtering.report.funnel_plot import BAR, funnel_svg

SPACE = "{http://www.w3.org/2000/svg}"
FUNNEL = {
    "rows": 1000,
    "kept": 600,
    "reasons": [
        {"rule": "lines", "rows": 0, "only_this_rule": 0},
        {"rule": "a<b", "rows": 100, "only_this_rule": 50},
        {"rule": "licence", "rows": 350, "only_this_rule": 350},
    ],
}


def test_bars_are_as_long_as_their_share_of_the_rows():
    picture = ElementTree.fromstring(funnel_svg(FUNNEL))
    bars = [(r.get("class"), float(r.get("width"))) for r in picture.iter(f"{SPACE}rect")]
    assert bars == [
        ("all", BAR),
        ("kept", 0.6 * BAR),
        ("out", 0.35 * BAR),
        ("only", 0.35 * BAR),
        ("out", 0.1 * BAR),
        ("only", 0.05 * BAR),
    ]


def test_rules_stand_with_their_numbers_the_most_first_and_silent_ones_are_left_out():
    picture = ElementTree.fromstring(funnel_svg(FUNNEL))
    texts = [t.text for t in picture.iter(f"{SPACE}text")]
    assert texts[4:8] == ["licence", "350 (35.0 %)", "a<b", "100 (10.0 %)"]
    assert "lines" not in texts


def test_no_row_at_all_is_a_picture_too():
    ElementTree.fromstring(funnel_svg({"rows": 0, "kept": 0, "reasons": []}))
