"""A bundle is opened whole and unchanged, or not at all."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.manifest import Manifest, read_manifest
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError, BundleError, UsageError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.hashing import hash_file
from cxr_trt.score.engine import Engine


@pytest.fixture
def bundle(center_bundle, tmp_path):
    return shutil.copytree(center_bundle, tmp_path / "copy.cxr")


def rewritten(bundle, **changes):
    """Change the manifest and its own hash with it, as a build by another version would."""
    manifest = read_manifest(bundle)
    fields = {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}
    (bundle / "manifest.json").write_text(Manifest(**{**fields, **changes}).to_json())


def test_manifest_says_what_it_is(bundle):
    fields = json.loads((bundle / "manifest.json").read_text())
    assert fields["graph"]["weights"] == "untrained"
    assert fields["backend"] == "openvino"
    assert sorted(fields["files"]) == ["model.onnx", "openvino.bin", "openvino.xml"]
    assert fields["specification_sha256"].startswith(read_manifest(bundle).fingerprint.split("-")[1])


def test_an_untrained_engine_says_so(bundle):
    with Engine(bundle) as engine:
        assert engine.warnings == ("untrained model: its probabilities mean nothing",)


@pytest.mark.parametrize("name", ["model.onnx", "openvino.bin", "openvino.xml", "manifest.json"])
def test_a_changed_byte_is_noticed(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        Engine(bundle)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"alpha": 0.7', '"alpha": 0.8'),
        ('"weights": "untrained"', '"weights": "trained"'),
        ('"max_batch": 1', '"max_batch": 9'),
        ("\n}", "\n }"),
    ],
)
def test_a_manifest_that_still_makes_sense_but_was_edited_is_noticed(bundle, old, new):
    text = (bundle / "manifest.json").read_text()
    assert text.count(old) == 1
    (bundle / "manifest.json").write_text(text.replace(old, new))
    with pytest.raises(BundleError, match=r"manifest\.json: changed since"):
        Engine(bundle)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "null", '{"graph": 3}'])
def test_a_damaged_manifest_is_one_sentence(bundle, content):
    (bundle / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match="damaged or from another version"):
        Engine(bundle)


def test_a_missing_file_is_named(bundle):
    (bundle / "openvino.bin").unlink()
    with pytest.raises(BundleError, match=r"openvino\.bin is missing"):
        Engine(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname"])
def test_a_file_outside_the_bundle_is_refused(bundle, name):
    rewritten(bundle, files={name: "0" * 64})
    with pytest.raises(BundleError, match="is missing"):
        Engine(bundle)


def test_a_file_that_the_manifest_does_not_know_is_refused(bundle):
    """Such as a library that a backend would load, or a file that it reads though its hash was left out."""
    (bundle / "plugin.so").touch()
    with pytest.raises(BundleError, match=r"plugin\.so: is not in the manifest"):
        Engine(bundle)
    (bundle / "plugin.so").unlink()
    files = dict(read_manifest(bundle).files)
    del files["openvino.bin"]
    rewritten(bundle, files=files)
    with pytest.raises(BundleError, match=r"openvino\.bin: is not in the manifest"):
        Engine(bundle)


def test_a_link_out_of_the_bundle_is_refused(bundle, tmp_path):
    (bundle / "openvino.bin").rename(tmp_path / "elsewhere")
    (bundle / "openvino.bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"openvino\.bin: is a link"):
        Engine(bundle)


def test_a_graph_with_weights_elsewhere_is_refused_before_a_backend_reads_it(bundle):
    """The manifest is consistent, as that of a hostile bundle would be."""
    manifest = read_manifest(bundle)
    model = onnx.load(bundle / "model.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    hashes = {path.name: hash_file(path) for path in bundle.iterdir() if path.name != "manifest.json"}
    (bundle / "manifest.json").write_text(replace(manifest, files=hashes).to_json())
    with pytest.raises(BundleError, match=r"model\.onnx: keeps its weights in other files"):
        Engine(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"max_batch": 10**9}},
        {"settings": {"max_batch": "1"}},
        {"settings": {"max_batch": 1, "hyper_threading": "no"}},
        {"settings": []},
        {"precision": 3},
        {"files": {"model.onnx": 5}},
    ],
)
def test_values_that_no_build_writes_are_refused(bundle, changes):
    rewritten(bundle, **changes)
    with pytest.raises(BundleError, match="damaged or from another version"):
        Engine(bundle)


@pytest.mark.parametrize("changes", [{"image_size": 10**6}, {"crop_size": "448"}, {"mean": [1e300] * 3}, {"std": 5}])
def test_a_specification_that_would_fill_the_memory_is_refused(bundle, changes):
    fields = json.loads((bundle / "manifest.json").read_text())
    fields["graph"]["spec"].update(changes)
    (bundle / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(BundleError, match="damaged or from another version"):
        Engine(bundle)


def test_an_endless_or_deep_manifest_is_refused(bundle):
    whole = (bundle / "manifest.json").read_text()  # with spaces after it, it would be read and found to be changed
    for text in (whole + " " * (1 << 20), "[" * 200_000):
        (bundle / "manifest.json").write_text(text)
        with pytest.raises(BundleError, match="damaged or from another version"):
            Engine(bundle)


def test_another_backend_version_names_both_and_the_command(bundle):
    rewritten(bundle, backend_version="2023.0.0")
    with pytest.raises(BundleError, match=r"openvino 2023\.0\.0, but 20.* is installed.*cxr-trt build-engine"):
        Engine(bundle)


def test_a_version_compatible_engine_runs_with_later_versions_only(bundle):
    manifest = replace(read_manifest(bundle), backend_version="10.3.0")
    compatible = replace(manifest, settings={**manifest.settings, "version_compatible": True})
    versions = ("10.2.9", "10.3.0", "10.16.1.11", "11.1.0")
    assert [manifest.runs_with(version) for version in versions] == [False, True, False, False]
    assert [compatible.runs_with(version) for version in versions] == [False, True, True, True]
    rewritten(bundle, settings=compatible.settings, backend_version="no version")
    with pytest.raises(BundleError, match="damaged or from another version"):
        Engine(bundle)


def test_an_unknown_backend_is_refused(bundle):
    rewritten(bundle, backend="coreml")
    with pytest.raises(BundleError, match="unknown backend 'coreml'"):
        Engine(bundle)


def test_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        Engine(tmp_path / "none.cxr")
    (tmp_path / "model.onnx").write_bytes(b"graph")
    with pytest.raises(BundleError, match=r"must first be built: `cxr-trt build-engine .*model.onnx -o .*model.cxr`"):
        read_manifest(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="not an engine bundle"):
        Engine(tmp_path)


def test_the_fingerprint_tells_engines_apart(bundle):
    before = read_manifest(bundle).fingerprint
    rewritten(bundle, settings={"max_batch": 2})
    engine, spec = read_manifest(bundle).fingerprint.split("-")
    assert engine != before.split("-")[0]
    assert spec == before.split("-")[1]


def test_how_long_the_engine_took_is_no_part_of_its_fingerprint(bundle):
    manifest = read_manifest(bundle)
    rewritten(bundle, settings={**manifest.settings, "tuning": {"1 x 1": 0.9}})
    assert read_manifest(bundle).fingerprint == manifest.fingerprint


def test_an_existing_bundle_is_replaced_only_on_request(bundle):
    request = BuildRequest(ScoringGraph.load(bundle / "model.onnx"), BACKENDS["onnxruntime"])
    before = (bundle / "manifest.json").read_text()
    with pytest.raises(UsageError, match="--overwrite"):
        build_bundle(request, bundle)
    assert (bundle / "manifest.json").read_text() == before
    build_bundle(request, bundle, overwrite=True)
    assert sorted(path.name for path in bundle.iterdir()) == ["engine.onnx", "manifest.json", "model.onnx"]


def test_a_folder_that_is_no_bundle_is_never_replaced(bundle, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    request = BuildRequest(ScoringGraph.load(bundle / "model.onnx"), BACKENDS["onnxruntime"])
    with pytest.raises(UsageError, match="not an engine bundle"):
        build_bundle(request, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_a_failed_build_leaves_nothing(bundle, tmp_path):
    graph = ScoringGraph.load(bundle / "model.onnx")
    stem = next(tensor for tensor in graph.model.graph.initializer if tensor.name == "features.conv0.weight")
    stem.name = "lost"
    with pytest.raises(BackendError, match="OpenVINO cannot convert"):
        build_bundle(BuildRequest(graph, BACKENDS["openvino"]), tmp_path / "new.cxr")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.cxr"]


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 1, 256, 256), np.uint8), np.zeros((1, 512, 512), np.float32), np.zeros((0, 512, 512), np.uint8)],
)
def test_wrong_arrays_are_refused(center_bundle, images):
    with Engine(center_bundle) as engine, pytest.raises(UsageError, match="not uint8"):
        engine.run(images)
