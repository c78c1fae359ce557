"""What was aimed at with the engines on a CPU, what the committed benchmark reached, and how much the limits leave."""

import statistics
from typing import Literal

from benchmarks.benchmark import own_precision_ratios
from benchmarks.study import Result
from benchmarks.tools.contest import BASELINE, OWN_PRECISION
from cxr_trt.markdown import markdown_table

TARGETS = (
    ("ten-crop, bf16", OWN_PRECISION, 1.5),
    ("ten-crop, bf16", BASELINE, 12.0),
    ("ten-crop, int8", OWN_PRECISION, 1.8),
    ("dense, int8", OWN_PRECISION, 6.0),
)
"""On a processor with bfloat16: an engine, a peer, and how many times faster than it."""
FIRST_ON_AVX2 = {"engine": 4.38, "files": 4.70}
"""How many times faster than PyTorch eager ten crops in float32 were when they were first measured with AVX2 alone, at
commit 138ab4b: as much or more is what was aimed at."""
BF16_TIMES = 2
"""How many times as fast as in float32 an engine in bfloat16 is if each layer comes as near to its limits: an
instruction multiplies twice as many pairs (VDPBF16PS beside VFMADD231PS, both of 512 bits; Intel 64 and IA-32
Architectures Software Developer's Manual, volume 2), and half as many bytes are moved."""


def precision_of(label: str) -> str:
    """The precision in an engine's label."""
    return label.rpartition(", ")[2]


def layers_seconds(own: Result) -> float:
    """What the layers of an engine take together, by the profile."""
    return float(sum(kind["seconds"] for kind in own["kinds"].values()))


def engine_and_limit(own: Result) -> tuple[float, float]:
    """Seconds of an engine, and at the limits."""
    limit = sum(min(kind["seconds"], kind["limit"]) for kind in own["kinds"].values())
    return statistics.median(own["seconds"]), limit


def times_the_limit(own: Result) -> tuple[float, float]:
    """How much longer an engine takes than at the limits: by its own time, and by its layers' if that is longer.

    At least 1: layers that are faster than their limit count with what the profile says, which takes time itself.
    """
    taken, limit = engine_and_limit(own)
    return max(1.0, taken / limit), max(1.0, taken / limit, layers_seconds(own) / limit)


def limit_range(own: Result, digits: int = 2) -> str:
    """`times_the_limit` as text: one number, or "low to high"."""
    low, high = (f"{times:.{digits}f}" for times in times_the_limit(own))
    return low if low == high else f"{low} to {high}"


def reached(compared: Result, part: Literal["engine", "files"] = "engine") -> list[float]:
    """How many times faster than their peers the engines of TARGETS were, in a result of the benchmark."""
    own = own_precision_ratios(compared, part)
    rows = compared["rows"]
    return [
        own[label] if peer == OWN_PRECISION else rows[f"cxr-trt openvino, {label}"][part]["times_faster"]
        for label, peer, _ in TARGETS
    ]


def targets_table(result: Result, compared: Result) -> str:
    """Every target, and whether the benchmark reached it."""
    rows = []
    both = zip(TARGETS, reached(compared), reached(compared, "files"), strict=True)
    for (label, peer, target), *found in both:
        own = result["engines"].get(label)
        could = limit_range(own) if own else "not measured"
        rows.append((label, peer, f"{target:g}", *(_judged(times, target) for times in found), could))
    return markdown_table(
        ("engine", "beside", "times faster, aimed at", "engine alone", "from files", "could be"), rows
    )


def _judged(times: float, target: float) -> str:
    return f"{times:.2f}" + ("" if times >= target else f" ({target / times:.2f} times too slow)")


def verdict(result: Result, compared: Result) -> str:
    """Of every target that was missed, whether the limits leave room for it."""
    sentences = []
    for (label, peer, target), found in zip(TARGETS, reached(compared), strict=True):
        if found >= target:
            continue
        lacking, own = target / found, result["engines"].get(label)
        missed = f"- **{label}** misses {target:g} times {peer} by a factor of {lacking:.2f}."
        if own is None:
            is_bf16 = precision_of(label) == "bf16"
            known = _bf16_beside_float32(label, lacking, result, compared) if is_bf16 else "Its limit is not known."
            sentences.append(f"{missed} Its layers are not measured on this page. {known}")
            continue
        low, high = times_the_limit(own)
        room = "they leave room for that" if low >= lacking else "they leave no room for that"
        if low < lacking <= high:
            room = "whether they leave room for that cannot be told"
        sentences.append(
            f"{missed} At the limits it would be {limit_range(own)} times faster on this processor: {room}."
        )
    return "\n".join(sentences)


def on_avx2(compared: Result) -> str:
    """What became of float32 where there is no more than AVX2, in a result of the benchmark there."""
    row = compared["rows"]["cxr-trt openvino, ten-crop"]
    engine, files = (_judged(row[part]["times_faster"], first) for part, first in FIRST_ON_AVX2.items())
    return (
        f"- **ten-crop, fp32** [with AVX2 alone](benchmark-avx2.md) was to stay as much faster than {BASELINE} as "
        f"it was first: {FIRST_ON_AVX2['engine']:.2f} times for the engine alone, {FIRST_ON_AVX2['files']:.2f} times "
        f"from files. Now it is {engine} and {files}."
    )


def _bf16_beside_float32(label: str, lacking: float, result: Result, compared: Result) -> str:
    """How many times as fast as in float32 an engine was and would have to be, and what that asks of it."""
    views = label.partition(", ")[0]
    rows = compared["rows"]
    float32, own = (rows[f"cxr-trt openvino, {name}"]["engine"]["seconds"] for name in (views, label))
    times = statistics.median(a / b for a, b in zip(float32, own, strict=True))
    wanted = times * lacking
    left = limit_range(result["engines"][f"{views}, fp32"])
    return (
        f"Beside the same engine in float32 it was {times:.2f} times as fast, and would have to be {wanted:.2f} times "
        f"as fast. Without AMX, an instruction multiplies {BF16_TIMES} pairs in bf16 for each pair in float32, and "
        f"half as many bytes move: at the same share of its limits it would be {BF16_TIMES} times as fast. So it would "
        f"have to come {wanted / BF16_TIMES:.2f} times nearer to them than in float32, where {left} times is all that "
        "is left on the processor of this page. How much is left on the other one is not measured."
    )
