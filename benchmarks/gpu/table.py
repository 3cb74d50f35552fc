"""The record of a run as Markdown, for docs/performance.md: each baseline with its precision."""

from typing import Any, NamedTuple

from benchmarks.gpu.work import Work, least_ms

VALUE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1}
OURS = "wetread rtx fp16"


class Best(NamedTuple):
    """The best that this GPU showed in the same run."""

    tflop_per_s: dict[str, float]
    gb_per_s: float


def markdown(whole: dict[str, Any]) -> str:
    """Write every step's fate, the facts, and one table for each model and case."""
    steps, records = whole["steps"], whole["records"]
    lines = ["# Measurements on the GPU", "", "| step | ended | s |", "|---|---|--:|"]
    lines += [f"| {name} | {step['ended']} | {step.get('seconds', '')} |" for name, step in steps.items()]
    lines += ["", *facts(records.get("facts", {})), "", *probe(records.get("probe", {}))]
    best = best_of(records.get("facts", {}))
    for name, record in records.items():
        if name.startswith("model-"):
            lines += ["", f"## {name.removeprefix('model-')}", "", *model(record, best)]
    for name, record in records.items():
        for what, error in record.get("errors", {}).items():
            lines.append(f"- {name}, {what}: {one_line(error['error'])}")
    return "\n".join(lines) + "\n"


def facts(record: dict[str, Any]) -> list[str]:
    lines = [f"- {key}: {value}" for key, value in record.get("nvidia_smi", {}).items()]
    lines += [f"- {name} {version}" for name, version in record.get("packages", {}).items() if version]
    if "copy_gb_per_s" in record:
        lines.append(f"- copy on the device: {record['copy_gb_per_s']} GB/s (read and written)")
    lines += [f"- matrix product {kind}: {rate} TFLOP/s" for kind, rate in record.get("matmul_tflop_per_s", {}).items()]
    return [*lines, *([record["no_gpu"]] if "no_gpu" in record else [])]


def probe(record: dict[str, Any]) -> list[str]:
    lines = []
    for name, said in record.get("stages", {}).items():
        told = "; ".join(f"{stage}: {one_line(what)}" for stage, what in said.items())
        lines.append(f"- TensorRT for RTX {record.get('version')}, engine for {name}: {told}")
    return lines


def best_of(record: dict[str, Any]) -> Best | None:
    rates = record.get("matmul_tflop_per_s")
    return Best(rates, record["copy_gb_per_s"]) if rates and record.get("copy_gb_per_s") else None


def model(record: dict[str, Any], best: Best | None) -> list[str]:
    """One model's engines, and its cases."""
    lines = []
    if "no_gpu" in record:
        return [record["no_gpu"]]
    for name, engine in record.get("engines", {}).items():
        seconds = ", ".join(f"{what} {value} s" for what, value in engine["seconds"].items())
        check = f"golden check {engine['golden check']}, error {engine['probability error']:.5f}"
        lines.append(f"- {name}: {check}; {seconds}; {engine['gpu_mb']} MB of the GPU")
    work = record.get("work")
    if work:
        lines.append(f"- work: {work['operations'] / 1e9:.1f} GFLOP, {work['values'] / 1e6:.1f} million values")
    for case, subjects in record.get("cases", {}).items():
        lines += ["", f"**{case}** (ms, median and range)", ""]
        lines += [
            "| subject | wall | GPU events | × ours | of the roofline | memory at its peak, MB |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        ours = subjects.get(OURS, {}).get("wall_ms", {}).get("median")
        for name, measured in subjects.items():
            wall, gpu = measured["wall_ms"], measured.get("gpu_ms")
            ratio = f"{wall['median'] / ours:.2f}" if ours else ""
            part = ""
            if best and work and gpu and case.startswith("network, on the device"):
                least = least_of(name, work, best)
                part = f"{least / gpu['median']:.0%}" if gpu["median"] else ""
            peak = measured.get("peak_mb")
            shown = "" if peak is None else f"{peak:.0f}"
            lines.append(f"| {name} | {span(wall)} | {span(gpu) if gpu else ''} | {ratio} | {part} | {shown} |")
    for what, figures in record.get("agreement", {}).items():
        lines += ["", f"{what}: " + ", ".join(f"{name} {value:.6g}" for name, value in figures.items())]
    return lines


def least_of(name: str, work: dict[str, Any], best: Best) -> float:
    """The roofline in the precision that a subject's name tells."""
    kind = next((each for each in ("int8", "bf16", "fp16", "tf32") if each in name), "fp32")
    # TensorRT takes TF32 for FP32 convolutions, as is its default. No rate of INT8 was measured: twice FP16's.
    rate = 2 * best.tflop_per_s["fp16"] if kind == "int8" else best.tflop_per_s[kind]
    if kind == "fp32" and name.startswith("wetread"):
        rate = best.tflop_per_s["tf32"]
    return least_ms(Work(work["operations"], work["values"]), VALUE_BYTES[kind], rate, best.gb_per_s)


def span(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['min']:.2f}–{values['max']:.2f})"


def one_line(text: str) -> str:
    return " ".join(str(text).split())[:300]
