"""Plants one bug at a time in a copy of plugins/ and says which tests see it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from benchmarks.study import ROOT, Result
from cxr_trt.markdown import markdown_table
from cxr_trt.processors import processors

PACKAGES = ("pytest", "nvidia-cuda-nvdisasm")
PLUGINS = ROOT / "plugins"
TESTS = ROOT / "tests" / "plugins"
TEXT = """\
# Planted bugs, and which tests see them

**{headline}**

One bug at a time was planted in a copy of `plugins/`. Seen by {counts}.

{survivors}

- **values**: executed on the CPU and compared with NumPy. **memory**: the same under AddressSanitizer and
  UndefinedBehaviorSanitizer. **threads**: under ThreadSanitizer.
- **ptx**: nvcc's PTX, executed. **plugin**: the TensorRT plugin, driven through TensorRT's interfaces. **budget**: what
  ptxas and the disassembly say.
- `-`: this check was not run on the bug.

{rows}

Compilers: {compilers}.
"""
KERNEL, CHECK, PLUGIN = "max_min_pool.cuh", "arguments.h", "tensorrt_plugin.cpp"
CHECKS = {
    "values": ["test_kernel_on_cpu.py", "-k", "not sanitizers and not torch"],
    "memory": ["test_kernel_on_cpu.py", "-k", "sanitizers and memory"],
    "threads": ["test_kernel_on_cpu.py", "-k", "sanitizers and threads"],
    "ptx": ["test_kernel_ptx.py", "-k", "not machine and not larger and sm_75"],
    "ptx sm_80": ["test_kernel_ptx.py", "-k", "not machine and not larger and sm_80"],
    "plugin": ["test_tensorrt_plugin.py", "-k", "not TestBuild"],
    "budget": ["test_budget.py", "-k", "75"],
}
STAGED = "    __syncwarp();\n    float* to"
# sm_80 differs from sm_75 in its reductions only; most bugs move no access and no order of threads.
ONLY_FOR = {
    "memory": "past|shared memory|8 bytes|any row",
    "threads": "barrier|stage|stores",
    "ptx sm_80": "redux",
}
HALVES = "kLanes / 2; distance > 0; distance /= 2"
STRIDE = "int64_t{gridDim.x} * warps"
ROWS = f"row < rows; row += {STRIDE}) {{\n    const T* from = maps + row * cells;\n"
ONE_ROW = "row = rows) {\n    const T* from = maps + row * cells;\n    ui"
MAX_SECONDS = 300  # of processor time for each process of a check: an endless loop ends then, whatever else is running
WINDOWS = "attributes_.windows.size()"
BUGS = [
    ("no barrier after staging", KERNEL, STAGED, "    float* to"),
    ("no barrier before the stage is overwritten", KERNEL, "    __syncwarp();  // the next row", "    // the next row"),
    ("barrier by half of the lanes", KERNEL, STAGED, "    if (lane < 16) __syncwarp();\n    float* to"),
    ("block barrier in a loop that warps leave apart", KERNEL, STAGED, "    __syncthreads();\n    float* to"),
    ("all warps share one stage", KERNEL, " + warp * cells;\n", ";\n"),
    ("too little shared memory", KERNEL, "static_cast<size_t>(warps) * row_bytes", "(warps - 1) * row_bytes"),
    ("mask without the last lane", KERNEL, "kAllLanes = 0xffffffffu", "kAllLanes = 0x7fffffffu"),
    ("shuffle that one lane skips", KERNEL, "  sum = warp_sum(sum);", "  if (above < V) sum = warp_sum(sum);"),
    ("sum over half a warp", KERNEL, f"{HALVES}) value +=", f"{HALVES.replace('2', '4', 1)}) value +="),
    ("maximum without the last step", KERNEL, f"{HALVES}) {{", f"{HALVES.replace('> 0', '> 1')}) {{"),
    ("redux of another kind", KERNEL, "__reduce_max_sync(kAllLanes, value)", "__reduce_min_sync(kAllLanes, value)"),
    ("last cell of a row left out", KERNEL, "key[j] = cell < cells ?", "key[j] = cell < cells - 1 ?"),
    ("a cell past the row counted", KERNEL, "key[j] = cell < cells ?", "key[j] = cell <= cells ?"),
    ("16-byte load past the end", KERNEL, "if (first + E <= cells) return", "if (first < cells) return"),
    ("16-byte loads of rows on 8 bytes", KERNEL, "16 == 0) {\n      read_keys", "8 == 0) {\n      read_keys"),
    ("8-byte loads of any row", KERNEL, "(from) % 8 == 0) {\n      stage_keys", "(from) % 1 == 0) {\n      stage_keys"),
    ("rows past the last", KERNEL, f"{ROWS}    uint32", f"{ROWS.replace('< rows', '< rows + 1')}    uint32"),
    ("row number in 32 bits", KERNEL, "(int64_t row = int64_t{blockIdx.x} *", "(int row = int(blockIdx.x) *"),
    ("grid that leaves out the last rows", KERNEL, "(rows + warps - 1) / warps", "std::max<int64_t>(rows / warps, 1)"),
    ("no loop over the grid", KERNEL, f"row += {STRIDE}) {{\n    const T* from = maps + row * cells;\n    ui", ONE_ROW),
    ("every lane stores", KERNEL, "if (lane == 0) scores[row]", "if (lane >= 0) scores[row]"),
    ("one bit too few in the search", KERNEL, "bit >= 0; --bit", "bit >= 1; --bit"),
    ("all ties count as above", KERNEL, "is_above = key[j] > threshold", "is_above = key[j] >= threshold"),
    ("ties left out", KERNEL, "if (ties > 0) sum", "if (ties > 1) sum"),
    ("ties of a value that no cell has", KERNEL, "if (ties > 0) sum", "if (ties >= 0) sum"),
    ("product with 0", KERNEL, "is_above ? value_of(key[j]) : 0.0f;", "is_above * value_of(key[j]);"),
    ("NaN by its bits", KERNEL, "cell == cell ? __float_as_uint(cell) : 0x7fc00000u", "__float_as_uint(cell)"),
    ("NaN the smallest", KERNEL, ": 0x7fc00000u", ": 0xffc00000u"),
    ("absent cells complemented too", KERNEL, "key[j] == kAbsent ? kAbsent : ~key[j]", "~key[j]"),
    ("alpha 0 not skipped", KERNEL, "  if (alpha == 0) return high;\n", ""),
    ("window's rows as wide as the window", KERNEL, "stage[(win.y + y) * w +", "stage[(win.y + y) * win.w +"),
    ("scores as [n, c, windows]", KERNEL, "to[i * c] = score", "scores[row * windows.count + i] = score"),
    ("instance one size too small", KERNEL, "largest <= 8 * kLanes", "largest <= 9 * kLanes"),
    ("arguments not checked", KERNEL, " || !problem(a).empty()", ""),
    ("window check without its place", CHECK, "win.h > a.h - win.y", "win.h > a.h"),
    ("k may be one more than the window", CHECK, "if (k > static_cast<int64_t>", "if (k - 1 > static_cast<int64_t>"),
    ("budget: loop unrolled too far", KERNEL, "#pragma unroll 2", "#pragma unroll 4"),
    ("budget: 8-byte loads only", KERNEL, "<16 / sizeof(T)>", "<8 / sizeof(T)>"),
    ("plugin: k_min saved as k_max", PLUGIN, "data = &attributes_.k_min", "data = &attributes_.k_max"),
    ("plugin: windows not saved", PLUGIN, "? kFieldCount - 1 : kFieldCount", "? kFieldCount - 1 : kFieldCount - 1"),
    ("plugin: clone without windows", PLUGIN, "copy = new Plugin(attributes_)", "copy = new Plugin({2, 1, 0.7f, {}})"),
    ("plugin: a context shares the plugin", PLUGIN, "override { return clone(); }", "override { return this; }"),
    ("plugin: scores in the type of the maps", PLUGIN, "outputs[0] = DataType::kFLOAT", "outputs[0] = inputs[0]"),
    ("plugin: any format", PLUGIN, "if (tensor.format != TensorFormat::kLINEAR) return false;", ""),
    ("plugin: float16 scores", PLUGIN, "(position == 0 && tensor.type", "(tensor.type"),
    ("plugin: int32 maps", PLUGIN, 'DataType::kHALF) return "";', 'DataType::kHALF || true) return "";'),
    ("plugin: one window too many", PLUGIN, "std::max<int64_t>(attributes_.windows.size(), 1)", f"{WINDOWS} + 1"),
    ("plugin: scores of another axis", PLUGIN, "d[2] = inputs[0].d[1]", "d[2] = inputs[0].d[3]"),
    ("plugin: changed shapes not checked", PLUGIN, "shape_problem(attributes_, inputs[0].dims)", "std::string()"),
    ("plugin: largest maps not checked", PLUGIN, "shape_problem(attributes_, inputs[0].max)", "wrong"),
    ("plugin: unknown batch, map not checked", PLUGIN, "(known || i < 2)", "known"),
    ("plugin: types of attributes not checked", PLUGIN, "if (field.type != known[index].type)", "if (false)"),
    ("plugin: two numbers for one", PLUGIN, "given[index]->length != 1", "given[index]->length < 1"),
    ("plugin: unknown attributes", PLUGIN, "kFieldCount) return", "kFieldCount) continue; if (0) return"),
    ("plugin: second value of an attribute", PLUGIN, "if (given[index]) return", "if (false) return"),
    ("plugin: windows of three numbers", PLUGIN, "if (windows->length % kNumbersOfWindow != 0)", "if (false)"),
    ("plugin: values not checked", PLUGIN, "return attribute_problem(to.with_maps(1, 1, 1, 1))", 'return ""'),
    ("plugin: failed launch is fine", PLUGIN, 'error == cudaSuccess ? ""', 'true ? ""'),
    ("plugin: logger not asked", PLUGIN, "finder ? finder->findLogger() : nullptr", "nullptr"),
    ("plugin: library shows all", "exports.map", "  local:\n    *;\n", ""),
    ("none", KERNEL, "", ""),
]  # fmt: skip
EQUIVALENT = {
    "grid that leaves out the last rows": "Equivalent: fewer blocks are launched, never none, and each loops over the"
    " grid until no row is left: all rows are scored, by fewer warps. It costs time at most, and the tests measure none"
}
"""Bugs that no score can show, and why."""


def is_for(check: str, name: str) -> bool:
    """Whether a check is run on a bug: one named "plugin: ..." or "budget: ..." is for that check alone."""
    if name == "none":
        return True
    part = name.split(":")[0] if ":" in name else ""
    if part or check in ("plugin", "budget"):
        return check == part
    return bool(re.search(ONLY_FOR.get(check, ""), name))


def plant(name: str, file: str, old: str, new: str) -> dict[str, str]:
    """Runs every check on a copy with one bug; what each saw, empty for nothing."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "plugins"
        shutil.copytree(PLUGINS, copy)
        text = (copy / file).read_text()
        if old not in text:
            raise click.ClickException(f"{name}: {file} no longer has {old!r}")
        (copy / file).write_text(text.replace(old, new) if old else text)
        found = {}
        for check, (tests, *options) in CHECKS.items():
            if not is_for(check, name):
                continue
            command = [
                *("bash", "-c", f'ulimit -S -t {MAX_SECONDS}; exec "$@"', "bash"),
                sys.executable,
                "-m",
                "pytest",
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                str(TESTS / tests),
                *options,
            ]
            flags = "-O0 -Wno-error"  # a compiler's warning about a bug is no test that sees it
            environment = os.environ | {"CXR_TRT_PLUGINS": str(copy), "CXXFLAGS": flags}
            done = subprocess.run(
                [*command, f"--basetemp={temporary}/{tests}"],
                env=environment, cwd=ROOT, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode == -signal.SIGXCPU:
                found[check] = "did not end"
            else:
                found[check] = "" if done.returncode == 0 else summary(done.stdout + done.stderr, temporary)
        return found


def summary(output: str, temporary: str) -> str:
    """The first line of a failure that says something."""
    for pattern in (
        r"ERROR: AddressSanitizer: \S+", r"runtime error: [^\n]*", r"ThreadSanitizer: data race",
        r"launch failed: [^\n]*", r"PtxFaultError: [^\n]*", r"error \d+: [^\n]*", r"error: [^\n]*",
        r"^E +\w*Error: [^\n]*",
        r"^E +[^\n]*", r"Fatal Python error: [^\n]*", r"^FAILED [^\n]*",
    ):  # fmt: skip
        if found := re.search(pattern, output, re.M):
            text = re.sub("^E +", "", found[0].replace(temporary, ""))
            return re.sub(r"\s+", " ", text).replace("|", "/")[:100]
    return output.strip().splitlines()[-1][:100] if output.strip() else "crashed"


def _first_line(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    except (OSError, subprocess.CalledProcessError):
        return "not installed"


@click.command()
@click.option("--only", multiple=True, help="For a trial: bugs whose names hold this.")
def measure(only: tuple[str, ...]) -> Result:
    """Run the tests of the plugin on every planted bug."""
    chosen = [bug for bug in BUGS if not only or any(word in bug[0] for word in only)]
    found = {}
    with ThreadPoolExecutor(max(3, processors() // 2)) as pool:
        for bug, seen in zip(chosen, pool.map(lambda bug: plant(*bug), chosen), strict=True):
            found[bug[0]] = seen
            click.echo(f"{bug[0]}: {', '.join(check for check, text in seen.items() if text) or 'not seen'}", err=True)
    return {
        "compilers": {"g++": _first_line("g++", "-dumpfullversion"), "nvcc": _first_line("nvcc", "--version")},
        "bugs": found,
    }


def not_seen(result: Result) -> list[str]:
    """The planted bugs that no test sees."""
    return [name for name, seen in result["bugs"].items() if name != "none" and not any(seen.values())]


def problems(result: Result) -> list[str]:
    """Bugs that no test sees although it could, and tests that see a bug where there is none."""
    found = [f"no test sees the bug: {name}" for name in not_seen(result) if name not in EQUIVALENT]
    false = [check for check, text in result["bugs"].get("none", {}).items() if text]
    return found + [f"without a bug, {check} fails" for check in false]


def page(result: Result) -> str:
    """The page of a result."""
    bugs: dict[str, dict[str, str]] = result["bugs"]
    planted = {name: seen for name, seen in bugs.items() if name != "none"}
    counts = (f"{check}: {sum(bool(seen.get(check)) for seen in planted.values())}" for check in CHECKS)
    survivors = not_seen(result)
    rows = [
        (
            f"{name} (equivalent)" if name in EQUIVALENT else name,
            *(seen.get(check, "-").replace("|", "/") or "passes" for check in CHECKS),
        )
        for name, seen in bugs.items()
    ]
    return TEXT.format(
        headline=f"The tests see {len(planted) - len(survivors)} of {len(planted)} bugs planted in kernel and plugin.",
        counts=", ".join(counts),
        survivors="\n".join(f"- Not seen: {name}. {EQUIVALENT.get(name, 'A gap')}." for name in survivors),
        rows=markdown_table(("bug", *CHECKS), rows),
        compilers=", ".join(f"{name} {version}" for name, version in result["compilers"].items()),
    )
