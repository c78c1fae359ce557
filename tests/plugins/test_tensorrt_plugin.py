"""The TensorRT plugin as plugins/build.py builds it: in TensorRT's registry, by its C++ interface, and in a parser."""

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys

import onnx
import pytest
from onnx import helper
from toolchain import PLUGINS, ROOT, TEST_SOURCES, cuda_headers, require_gxx, require_nvcc

from cxr_trt.engine.gpu.cuda_versions import CudaVersion
from cxr_trt.engine.gpu.tensorrt_plugin import Plugin, cuda_major, why_not_plugin
from cxr_trt.export.pooling import POOLING_DOMAIN, POOLING_OPERATOR
from cxr_trt.export.scoring_graph import ScoringGraph
from plugins import build

ATTRIBUTES = ("k_max=int32:2", "k_min=int32:1", "alpha=float32:0.7")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The plugin for one architecture, built as `make plugin` does it, but without optimising GPU code."""
    require_gxx()
    require_nvcc()
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    folder = tmp_path_factory.mktemp("plugin")
    command = [sys.executable, PLUGINS / "build.py", "--architectures", "75-real", "--build", folder]
    environment = os.environ | {"NVCC_APPEND_FLAGS": "-Xcicc -O0 -Xptxas -O0"}
    subprocess.run([*command, "--output", folder / "plugin.so"], check=True, env=environment)
    return folder / "plugin.so"


def compile_driver(output, *options):
    headers = build.find_headers() or build.fetch_headers(build.BUILD / "tensorrt")
    includes = ["-isystem", headers, "-isystem", cuda_headers()]
    flags = ["-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", *options]
    subprocess.run(["g++", *flags, *includes, TEST_SOURCES / "plugin_driver.cpp", "-o", output, "-ldl"], check=True)
    return output


@pytest.fixture(scope="module")
def drive(library, tmp_path_factory):
    """Runs the driver, which AddressSanitizer ends where the plugin spoils or loses memory of the heap."""
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = compile_driver(tmp_path_factory.mktemp("driver") / "driver", *sanitizers)

    def run(*arguments, **environment):
        command = [program, library, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
        return done.stdout.splitlines(), done.stderr

    return run


def error(sentence):
    return f"log 1 MaxMinPool: {sentence}"


def child(name, *arguments):
    command = [sys.executable, ROOT / "tests" / "support" / "plugin_children.py", name, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_it_needs_no_tensorrt_and_no_cuda_runtime(library):
    dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    needed = [line for line in dynamic.splitlines() if "NEEDED" in line]
    assert needed
    assert not [line for line in needed if "nvinfer" in line or "cudart" in line]


def test_it_exports_what_tensorrt_looks_for_and_nothing_else(library):
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    exported = sorted(line.split()[-1] for line in symbols.splitlines())
    assert exported == ["cxr_trt_plugin_cuda_major", "getCreators", "setLoggerFinder"]


def test_it_says_which_cuda_it_is_for(library):
    released = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    major = int(released.partition("release ")[2].partition(".")[0])
    assert cuda_major(library) == major
    plugin = Plugin(library, "")
    assert why_not_plugin(plugin, CudaVersion(major, 0)) is why_not_plugin(plugin, None) is None
    assert why_not_plugin(plugin, CudaVersion(major - 1, 8)) == (
        f"the plugin {library} is for CUDA {major}, but the driver supports CUDA {major - 1}.8: build it again with "
        "CUDA_HOME naming a toolkit of that version, or use --no-plugin"
    )


def test_tensorrts_registry_takes_it(library):
    if importlib.util.find_spec("tensorrt_lean_bindings") is None:
        pytest.skip("needs pip install tensorrt-lean-cu13-libs tensorrt-lean-cu13-bindings")
    done = child("registry", library)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "loaded": True,
        "new": ["MaxMinPool"],
        "creator": ["PLUGIN CREATOR_V3ONE", "MaxMinPool", "1", ""],
        "fields": {"k_max": "INT32", "k_min": "INT32", "alpha": "FLOAT32", "windows": "INT32"},
        "made": "PLUGIN",
        "refused": True,
        "gone": True,
    }
    assert 'MaxMinPool: node "pool": k_max is 0 and k_min is 1; both must be at least 1\n' in done.stderr


@pytest.fixture(scope="module")
def parse(library, paper_model, tmp_path_factory):
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("needs pip install 'cxr-trt[tensorrt-rtx-cu13]'")
    folder = tmp_path_factory.mktemp("parser")
    watcher = compile_driver(folder / "watcher.so", "-shared", "-fPIC")

    def run(view_set="ten-crop", **attributes):
        model = ScoringGraph.load(paper_model).with_views(view_set).model
        pooling = (POOLING_DOMAIN, POOLING_OPERATOR)
        (node,) = (node for node in model.graph.node if (node.domain, node.op_type) == pooling)
        changed = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        changed |= attributes
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(*item) for item in changed.items() if item[1] is not None)
        onnx.save(model, folder / "model.onnx")
        return child("parser", library, watcher, folder / "model.onnx")

    return run


def test_the_exported_node_becomes_the_plugin(parse):
    """TensorRT-RTX ends the process when it is to make a layer of the plugin, and not before."""
    done = parse()
    assert done.stdout == "log 4 MaxMinPool: k_max 1, k_min 1, alpha 0.700000, 0 windows\n"
    assert done.returncode == -signal.SIGABRT
    assert done.stderr.endswith("terminate called without an active exception\n")


def test_the_windows_of_dense_views_reach_the_plugin(parse):
    done = parse("dense")
    assert done.stdout == "log 4 MaxMinPool: k_max 1, k_min 1, alpha 0.700000, 5 windows\n"
    assert done.returncode == -signal.SIGABRT


def test_windows_can_be_added_to_the_node(parse):
    done = parse(k_max=9, alpha=0.25, windows=[0, 0, 3, 3, 4, 5, 10, 9])
    assert done.stdout == "log 4 MaxMinPool: k_max 9, k_min 1, alpha 0.250000, 2 windows\n"
    assert done.returncode == -signal.SIGABRT


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"k_max": 0}, "k_max is 0 and k_min is 1; both must be at least 1"),
        ({"alpha": 1}, "alpha is int32; it must be float32"),
        ({"k_min": None}, "k_min is missing"),
    ],
)
def test_a_wrong_attribute_is_refused_and_the_node_is_named(parse, attributes, sentence):
    done = parse(**attributes)
    assert done.stdout == error(f'node "pool": {sentence}') + "\n"
    assert done.returncode == 1
    assert "BackendError: TensorRT-RTX refuses the graph at node pool (MaxMinPool)" in done.stderr


def test_creator_and_capabilities(drive):
    lines, _ = drive(*ATTRIBUTES, "capabilities")
    assert lines == [
        "1 creator, PLUGIN CREATOR_V3ONE 1.0: k_max=int32 k_min=int32 alpha=float32 windows=int32",
        "log 4 MaxMinPool: k_max 2, k_min 1, alpha 0.700000, 0 windows",
        "plugin PLUGIN",
        'core MaxMinPool 1 "" PLUGIN_V3ONE_CORE; build PLUGIN_V3ONE_BUILD, 1 output; runtime PLUGIN_V3ONE_RUNTIME',
    ]


WINDOWS = "windows=int32:0,0,7,7,3,4,2,1"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (ATTRIBUTES[1:], "k_max is missing"),
        (ATTRIBUTES[:2], "alpha is missing"),
        (["k_max=int64:2", *ATTRIBUTES[1:]], "k_max is int64; it must be int32"),
        (["k_max=float32:2", *ATTRIBUTES[1:]], "k_max is float32; it must be int32"),
        ([*ATTRIBUTES[:2], "alpha=float64:0.7"], "alpha is float64; it must be float32"),
        ([*ATTRIBUTES, "windows=float32:0,0,7,7"], "windows is float32; it must be int32"),
        (["k_max=int32:2,3", *ATTRIBUTES[1:]], "k_max has 2 values; it must have 1"),
        (["k_max=int32:", *ATTRIBUTES[1:]], "k_max has 0 values; it must have 1"),
        (["k_max=none:2", *ATTRIBUTES[1:]], "k_max is unknown; it must be int32"),
        ([*ATTRIBUTES, "k_max=int32:2"], "k_max is given twice"),
        ([*ATTRIBUTES, "window=int32:0"], 'there is no attribute "window"; there are k_max, k_min, alpha and windows'),
        (["k_max=int32:-2", *ATTRIBUTES[1:]], "k_max is -2 and k_min is 1; both must be at least 1"),
        ([*ATTRIBUTES[:2], "alpha=float32:nan"], "alpha is nan; it must be finite"),
        ([*ATTRIBUTES[:2], "alpha=float32:inf"], "alpha is inf; it must be finite"),
        ([*ATTRIBUTES, "windows=int32:0,0,7"], "windows has 3 numbers; each window has 4 (y, x, h, w)"),
        ([*ATTRIBUTES, "windows=int32:0,0,0,7"], "window 0 (y 0, x 0, h 0, w 7) is empty"),
        ([*ATTRIBUTES, "windows=int32:0,-1,7,7"], "window 0 (y 0, x -1, h 7, w 7) starts outside the map"),
        (["k_max=int32:3", *ATTRIBUTES[1:], WINDOWS], "k_max is 3, but window 1 (y 3, x 4, h 2, w 1) has only 2 cells"),
        ([*ATTRIBUTES, "windows=int32:" + "0,0,9,9," * 257], "257 windows were given; 0 to 256 are possible"),
    ],
)
def test_attributes_that_cannot_be(drive, fields, sentence):
    lines, _ = drive(*fields)
    assert lines[1:] == [error(f'node "pool": {sentence}'), "plugin none"]


def test_without_a_logger_errors_go_to_standard_error(drive):
    lines, printed = drive(*ATTRIBUTES[1:], NO_LOGGER="1")
    assert lines[1:] == ["plugin none"]
    assert printed == 'MaxMinPool: node "pool": k_max is missing\n'


def test_float32_and_float16_maps_linear_tensors(drive):
    """Of all pairs of types and formats: DataType 0 is float32, 1 float16; TensorFormat 0 is linear."""
    lines, _ = drive(*ATTRIBUTES, "formats", "types:float32", "types:float16", "types:int32", "types")
    assert lines[3:] == [
        "formats 0>0:0 1>0:0",
        "types taken 0",
        "types taken 0",
        error("maps are int32; they must be float32 or float16"),
        "types refused",
        error("0 inputs were given instead of 1, the maps"),
        "types refused",
    ]


@pytest.mark.parametrize(
    ("fields", "maps", "scores"),
    [
        ((), "3,14,7,7", "3 1 14"),
        ((), "-1,14,14,14", "-1 1 14"),
        ((), "-1,-1,-1,-1", "-1 1 -1"),
        ([WINDOWS], "-1,14,7,7", "-1 2 14"),
        ([WINDOWS], "2,14,-1,14", "2 2 14"),
    ],
)
def test_output_shapes(drive, fields, maps, scores):
    lines, _ = drive(*ATTRIBUTES, *fields, f"shapes:{maps}")
    assert lines[3:] == [f"shapes taken {scores}"]


@pytest.mark.parametrize(
    ("fields", "maps", "sentence"),
    [
        ((), "14,7,7", "maps have 3 dimensions; they must have 4: N, C, H, W"),
        ((), "1,14,7,7,1", "maps have 5 dimensions; they must have 4: N, C, H, W"),
        ((), "0,14,7,7", "maps [0, 14, 7, 7] have a dimension below 1"),
        ((), "2,14,0,7", "maps [2, 14, 0, 7] have a dimension below 1"),
        ((), "2,14,64,65", "maps [2, 14, 64, 65] have more than 4096 cells each"),
        ((), "2,14,1,1", "k_max is 2, but a map of 1 x 1 has only 1 cells"),
        ([WINDOWS], "2,14,7,6", "window 0 (y 0, x 0, h 7, w 7) is not inside the map of 7 x 6 cells"),
    ],
)
def test_maps_that_cannot_be_are_refused_before_they_are_pooled(drive, fields, maps, sentence):
    lines, _ = drive(*ATTRIBUTES, *fields, f"shapes:{maps}", f"change:{maps}")
    assert lines[3:] == [error(sentence), "shapes refused", error(sentence), "change refused"]
    lines, _ = drive(*ATTRIBUTES, *fields, f"configure:{maps}:2,14,14,14", f"configure:1,14,7,7:{maps}")
    assert lines[3:] == [error(sentence), "configure refused", error(sentence), "configure refused"]


def test_an_unknown_batch_does_not_hide_a_wrong_map(drive):
    lines, _ = drive(*ATTRIBUTES, "shapes:-1,14,1,1", "shapes:0,14,-1,7", "configure:1,14,7,7:9,14,7,7")
    assert lines[3:] == [
        error("k_max is 2, but a map of 1 x 1 has only 1 cells"),
        "shapes refused",
        "shapes taken 0 1 14",  # not all is known yet
        "configure taken",
    ]


@pytest.mark.parametrize("fields", [(), [WINDOWS]])
def test_copies_are_equal(drive, fields):
    saved = "fields k_max=int32:2, k_min=int32:1, alpha=float32:0.699999988,"
    saved += " windows=int32:0,0,7,7,3,4,2,1," * bool(fields)
    lines, _ = drive(*ATTRIBUTES, *fields, "serialize", "clone", "serialize", "attach", "serialize", "shapes:2,14,7,7")
    created = lines[1]
    file = [saved, created, "serialize another"]
    assert lines[3:] == [
        *file,
        "clone another",
        *file,
        "attach another",
        *file,
        f"shapes taken 2 {2 if fields else 1} 14",
    ]


def test_a_launch_that_fails_is_a_status_and_a_sentence(drive):
    """Without a driver no launch works; with one, the wrong maps are refused once more."""
    lines, _ = drive(*ATTRIBUTES, "enqueue:0,14,7,7")
    assert lines[3].startswith(error("the kernel did not start: "))
    assert lines[4:] == ["enqueue refused"]


class TestBuild:
    def test_tensorrt_root_comes_first(self, tmp_path, monkeypatch):
        (tmp_path / "include").mkdir()
        (tmp_path / "include" / "NvInferRuntime.h").touch()
        monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
        assert build.find_headers() == tmp_path / "include"

    def test_cuda_home_comes_before_path(self, tmp_path, monkeypatch):
        for folder in ("home/bin", "path"):
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "nvcc").touch(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "path"))
        monkeypatch.delenv("CUDA_PATH", raising=False)
        monkeypatch.delenv("CUDA_HOME", raising=False)
        assert build.find_nvcc() == tmp_path / "path" / "nvcc"
        monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
        assert build.find_nvcc() == tmp_path / "home" / "bin" / "nvcc"

    @pytest.mark.slow
    def test_it_builds_with_everything_from_pypi(self, tmp_path, monkeypatch):
        require_gxx()
        monkeypatch.setattr(build, "BUILD", tmp_path)
        monkeypatch.setattr(build, "find_nvcc", lambda: None)
        monkeypatch.setattr(build, "find_headers", lambda: None)
        monkeypatch.setattr(build, "find_cmake", lambda: None)
        library = build.build(tmp_path, tmp_path / "plugin.so", "90-real")
        assert b"MaxMinPool" in library.read_bytes()
        cache = (tmp_path / "cmake-build" / "CMakeCache.txt").read_text()
        assert f"CMAKE_CUDA_COMPILER:UNINITIALIZED={tmp_path}" in cache or f"={tmp_path}/cuda/nvidia/cu13/bin" in cache

    def test_headers_from_pypi_are_of_one_hash(self, tmp_path, monkeypatch):
        folder = build.fetch_headers(tmp_path)
        assert "IPluginV3OneRuntime" in (folder / "NvInferRuntime.h").read_text()
        (wheel,) = folder.glob("*.whl")
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() == build.HEADERS_SHA256
        (folder / "NvInferRuntime.h").unlink()
        monkeypatch.setattr(build, "HEADERS_SHA256", "0" * 64)
        with pytest.raises(SystemExit, match="its sha256 is 07cc714e8b5e"):
            build.fetch_headers(folder)
        assert not (folder / "NvInferRuntime.h").exists()
