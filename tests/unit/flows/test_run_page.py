"""What stands on a run's page, from the files of the artifacts."""

from flows.orchestration.run_page import funnel_rows, metric_rows, verdict_markdown

GATE = {
    "verdict": "improved",
    "reasons": ["Loss on held-out is better."],
    "comparisons": [
        {
            "name": "loss",
            "on": "held-out",
            "shown": {
                "base": "1.235",
                "tuned": "1.100",
                "difference": "−0.135 nats",
                "interval": "−0.200 to −0.069 nats",
            },
            "outcome": "better",
        }
    ],
}


def test_funnel_table_starts_with_what_was_kept_and_leaves_out_rules_that_rejected_nothing():
    funnel = {
        "rows": 10,
        "kept": 4,
        "reasons": [
            {"rule": "lines", "rows": 1},
            {"rule": "encoded_run", "rows": 0},
            {"rule": "duplicate", "rows": 5},
        ],
    }
    assert funnel_rows(funnel) == [
        {"what": "rows", "rows": 10},
        {"what": "kept", "rows": 4},
        {"what": "rejected: duplicate", "rows": 5},
        {"what": "rejected: lines", "rows": 1},
    ]


def test_metric_table_has_a_row_a_comparison_with_units_interval_and_outcome():
    assert metric_rows(GATE) == [
        {
            "measured": "loss, held-out",
            "base": "1.235",
            "tuned": "1.100",
            "difference": "−0.135 nats",
            "95 % interval": "−0.200 to −0.069 nats",
            "outcome": "better",
        }
    ]


def test_verdict_page_says_the_verdict_and_its_reasons():
    assert verdict_markdown(GATE) == "# Improved\n\n- Loss on held-out is better.\n"
