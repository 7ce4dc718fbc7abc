"""Estimate of a training step's time on an RTX 3080: `python -m benchmarks.training.roofline`.

Nothing is measured: operations of matrix products over the card's data-sheet rate times an assumed
share of it, and the H100's measured time of everything else scaled by bandwidth. Per 4,096 tokens
at the shape of stable-code-3b, with as many layers kept as fit 9 GiB.
"""

import sys

from benchmarks.random_model import SHAPE
from tasks.core.models.memory_estimate import DecoderShape

TOKENS, RUN_TOKENS = 4096, 2000 * 16_384
BF16_TFLOPS, INT8_TOPS, BANDWIDTH = 59.5, 238.0, 760.0  # RTX 3080 10 GB, dense; GB/s
H100_BANDWIDTH = 3350.0
BF16_SHARE, INT8_SHARE, ATTENTION_SHARE = 0.85, 0.6, 0.5  # assumed shares of those rates
KEPT, RECOMPUTED = 22, 0.78  # layers; share of a layer's products that the others compute again
# attention's operations; all other kernels' time per 4,096 tokens in one profile on the H100, and
# with about 10.5 ms more for rotating and rounding
ATTENTION_TFLOP, REST_MS, INT8_REST_MS = 1.6, 33.4, 44.0


def estimate(int8: bool) -> list[tuple[str, str, float]]:
    """Part, arithmetic and milliseconds."""
    shape = DecoderShape(
        SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["num_hidden_layers"],
        *(SHAPE[f"num_{kind}_heads"] for kind in ("attention", "key_value")), 80,
        SHAPE["vocab_size"], False,
    )  # fmt: skip
    once = 2 * shape.linear_weights * TOKENS / 1e12
    again = once * RECOMPUTED * (shape.layers - KEPT) / shape.layers
    head = 4 * shape.hidden * shape.vocabulary * TOKENS / 1e12
    rate, small_rate = BF16_TFLOPS * BF16_SHARE, INT8_TOPS * INT8_SHARE
    backward = small_rate if int8 else rate
    rest = INT8_REST_MS if int8 else REST_MS
    attention = BF16_TFLOPS * ATTENTION_SHARE
    return [
        ("products, forward", f"{once:.1f} / {rate:.1f} TFLOP/s", once / rate * 1e3),
        ("products, computed again", f"{again:.1f} / {rate:.1f}", again / rate * 1e3),
        ("products, backward", f"{once:.1f} / {backward:.1f}", once / backward * 1e3),
        ("head", f"{head:.1f} / {rate:.1f}", head / rate * 1e3),
        ("attention", f"{ATTENTION_TFLOP} / {attention:.1f}", ATTENTION_TFLOP / attention * 1e3),
        (
            "all else",
            f"{rest} ms x {H100_BANDWIDTH:.0f} / {BANDWIDTH:.0f} GB/s",
            rest * H100_BANDWIDTH / BANDWIDTH,
        ),
    ]


def main() -> None:
    """Print both tables side by side."""
    lines = ["| part | bf16 | ms | int8 | ms |", "|---|---|---|---|---|"]
    first, second = estimate(False), estimate(True)
    for (part, how, ms), (_, how8, ms8) in zip(first, second, strict=True):
        lines.append(f"| {part} | {how} | {ms:.0f} | {how8} | {ms8:.0f} |")
    total, total8 = (sum(ms for _, _, ms in rows) for rows in (first, second))
    lines.append(f"| all | | {total:,.0f} | | {total8:,.0f} |")
    speeds = [TOKENS / ms * 1e3 for ms in (total, total8)]
    lines.append(f"| tokens/s | | {speeds[0]:,.0f} | | {speeds[1]:,.0f} |")
    hours = [RUN_TOKENS / speed / 3600 for speed in speeds]
    lines.append(f"| 2,000 steps of 16,384 tokens | | {hours[0]:.1f} h | | {hours[1]:.1f} h |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
