"""What is written from the committed results: the studies' pages, the list of them, and README's table of speed."""

from benchmarks.catalogue import STUDIES
from benchmarks.study import PAGES, RESULTS, ROOT
from cxr_trt.markdown import markdown_table

README = ROOT / "README.md"
INDEX = PAGES / "index.md"
SPEED_BEGIN = "<!-- speed table -->"
SPEED_END = "<!-- end of speed table -->"
SPEED_ROWS = {
    "PyTorch eager": "PyTorch, ten crops",
    "ONNX Runtime, plain export": "ONNX Runtime on a plain `torch.onnx.export`",
    "OpenVINO, plain export": "OpenVINO on the same export, float32",
    "OpenVINO, plain export, own precision": "OpenVINO on the same export, bfloat16, its own choice",
    "cxr-trt openvino, ten-crop": "**cxr-trt, ten crops**",
    "cxr-trt openvino, ten-crop, bf16": "**cxr-trt, ten crops, bf16**",
    "cxr-trt openvino, ten-crop, int8": "**cxr-trt, ten crops, int8**",
    "cxr-trt openvino, dense": "cxr-trt, dense views",
    "cxr-trt openvino, dense, int8": "cxr-trt, dense views, int8",
}
"""Rows of the benchmark that README shows, and what it calls them."""

INDEX_TEXT = """\
# Studies

`python -m benchmarks NAME` runs a study. It writes the numbers to `benchmarks/results/NAME.json` and makes the page
here from that file and nothing else. Durations are on two idle processors.

{table}

```{{toctree}}
:hidden:

{names}
```
"""


def write_all_pages() -> None:
    """Write everything that is made from the committed results."""
    for study in STUDIES.values():
        study.write_page(RESULTS, PAGES)
    INDEX.write_text(index(), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    before, _, rest = readme.partition(SPEED_BEGIN)
    _, _, after = rest.partition(SPEED_END)
    README.write_text(f"{before}{SPEED_BEGIN}\n{speed_table()}\n{SPEED_END}{after}", encoding="utf-8")


def index() -> str:
    """The page that lists the studies."""
    rows = [
        (f"[{study.name}]({study.name}.md)", study.shows, study.needs, study.duration) for study in STUDIES.values()
    ]
    table = markdown_table(("study", "what it shows", "needs", "takes"), rows)
    return INDEX_TEXT.format(table=table, names="\n".join(STUDIES))


def speed_table() -> str:
    """The table of speed for README, from the benchmark's result."""
    result = STUDIES["benchmark"].result()
    measured = [(title, result["rows"][name]["files"]) for name, title in SPEED_ROWS.items()]
    rows = [(title, f"{own['median'] / result['files']:.2f}", f"{own['times_faster']:.1f}") for title, own in measured]
    table = markdown_table(("", "seconds per X-ray", "times faster than PyTorch"), rows)
    return (
        f"{table}\n\nFrom PNG files to a table of scores with the network `paper`: medians of {result['rounds']} "
        f"rounds, and of the ratios of each.\nMeasured on {result['date'][:10]} at commit {result['commit']}, on "
        f"{result['machine']}.\n"
        "[More rows, and how it was measured](docs/studies/benchmark.md)."
    )
