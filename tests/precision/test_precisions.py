"""`cxr-trt build-engine --precision`: what is measured, kept, refused, and what the engines then say."""

import csv
import json
import shutil

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from cxr_trt.cli import main
from cxr_trt.score.engine import Engine
from cxr_trt.precision.calibration_images import choose_images
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.precision.planning import plan_float16
from cxr_trt.errors import BundleError, GraphError, UsageError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.export.pictures import check_pictures
from cxr_trt.precision.plan import PLAN, Plan
from cxr_trt.findings import FINDINGS
from cxr_trt.spec import Specification

COUNT = 18  # images of the fixture `chests`


def build(*arguments):
    return CliRunner().invoke(main, ["build-engine", "--no-tune", *map(str, arguments)])


def test_an_int8_bundle_says_how_it_was_calibrated(int8):
    manifest = read_manifest(int8)
    assert manifest.precision == "int8"
    calibration = manifest.settings["int8"]
    assert calibration["images"] == 16
    assert calibration["method"] == "max"
    assert len(calibration["images_sha256"]) == len(calibration["weights_sha256"]) == 64
    plan = Plan.from_json((int8 / PLAN).read_text())
    units = set(plan.calibration.sensitivity)
    assert len(units) == 58 + 3  # dense layers and transitions
    assert set(calibration["floating_point_layers"]) < units
    assert 0 < manifest.settings["parity"]["mean"] < 0.03
    assert manifest.settings["parity"]["images"] == 4


def test_int8_is_really_int8(int8):
    """OpenVINO fuses the quantization into its own form: int8 kernels in the file that it keeps."""
    assert (int8 / "openvino.bin").stat().st_size < 12e6  # 28 MB in float32


def test_a_rebuilt_bundle_keeps_precision_and_calibration(int8, tmp_path):
    result = build(int8, "-o", tmp_path / "again.cxr", "--backend", "onnxruntime")
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "again.cxr")
    assert manifest.precision == "int8"
    assert manifest.settings["int8"] == read_manifest(int8).settings["int8"]
    operators = {node.op_type for node in onnx.load(tmp_path / "again.cxr" / "engine.onnx").graph.node}
    assert "QuantizeLinear" in operators
    with Engine(int8) as one, Engine(tmp_path / "again.cxr") as other:
        images = check_pictures(512)[:1]
        np.testing.assert_allclose(one.run(images).probabilities, other.run(images).probabilities, atol=0.02)


def test_a_calibration_holds_for_other_views(int8, tmp_path):
    result = build(int8, "-o", tmp_path / "dense.cxr", "--views", "dense", "--backend", "openvino")
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "dense.cxr")
    assert (manifest.precision, manifest.graph.spec.views) == ("int8", "dense")
    assert manifest.settings["parity"]["mean"] < 0.03


def test_a_calibration_for_other_weights_is_refused(int8, tmp_path):
    """Hashes that fit do not make a calibration fit: this bundle was put together from two."""
    bundle = shutil.copytree(int8, tmp_path / "mixed.cxr")
    plan = json.loads((bundle / PLAN).read_text())
    plan["calibration"]["weights_sha256"] = "0" * 64
    (bundle / PLAN).write_text(json.dumps(plan))
    _vouch(bundle, PLAN)
    with pytest.raises(BundleError, match="its calibration was made for other weights; build it again"):
        Engine(bundle)


def test_an_int8_bundle_without_its_record_is_refused(int8, tmp_path):
    bundle = shutil.copytree(int8, tmp_path / "bare.cxr")
    (bundle / PLAN).unlink()
    _vouch(bundle, PLAN)
    with pytest.raises(BundleError, match=r"has no precision\.json; build it again"):
        Engine(bundle)


def _vouch(bundle, name):
    """Make the manifest vouch for what is in the bundle now."""
    from dataclasses import replace

    from cxr_trt.engine.manifest import NAME, Manifest, hash_file
    from cxr_trt.export.scoring_graph import GraphInfo

    fields = json.loads((bundle / NAME).read_text())
    graph = fields["graph"]
    info = GraphInfo(Specification.from_mapping(graph.pop("spec")), **graph)
    manifest = Manifest(
        info, *(fields[key] for key in ("precision", "backend", "backend_version", "settings", "files"))
    )
    files = {key: value for key, value in manifest.files.items() if key != name}
    if (bundle / name).exists():
        files[name] = hash_file(bundle / name)
    (bundle / NAME).write_text(replace(manifest, files=files).to_json())


def test_float16_keeps_the_scores_and_says_how_much_room_there_is(fp16, center_bundle):
    manifest = read_manifest(fp16)
    assert (manifest.precision, manifest.backend) == ("fp16", "onnxruntime")
    assert manifest.settings["float32_layers"] == []
    assert manifest.settings["least_headroom"]["times"] > 8
    images = check_pictures(512)
    with Engine(fp16) as half, Engine(center_bundle) as single:
        difference = np.abs(half.run(images).probabilities - single.run(images).probabilities).max()
    assert 1e-6 < difference < 5e-3


def test_what_float16_cannot_hold_stays_float32(demo_weights, center_model, tmp_path):
    """One dense layer is made ten thousand times larger, and what reads it so much smaller: the network is the same."""
    layer, factor = "features.denseblock2.denselayer2", np.float32(1e4)
    model = onnx.ModelProto()
    model.CopyFrom(center_model)
    channels = slice(128 + 32, 128 + 64)  # of the block: those that the layer adds
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        name = tensor.name
        if name == f"{layer}.conv2.weight":
            values *= factor
        elif name.startswith(("features.denseblock2.denselayer", "features.transition2.norm")):
            if not name.endswith((".running_mean", ".running_var")) or len(values) < channels.stop:
                continue
            if "norm2" in name:
                continue
            values[channels] *= factor if name.endswith("mean") else factor**2
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "large.onnx")
    model, info = read_scoring_graph(tmp_path / "large.onnx")
    plan = plan_float16(model, info, check_pictures(512), lambda phase, fraction: None)
    assert f"{layer}.conv2" in plan.float32
    assert "features.denseblock2.denselayer2.conv1" not in plan.float32
    assert "features.denseblock3.denselayer1.conv1" not in plan.float32
    result = build(tmp_path / "large.onnx", "-o", tmp_path / "large.cxr", "--precision", "fp16")
    assert result.exit_code == 0, result.output  # the parity check passed
    assert read_manifest(tmp_path / "large.cxr").settings["float32_layers"] == list(plan.float32)


def test_a_precision_that_cannot_be_had_is_one_sentence(graph, tmp_path, chests):
    def refused(*arguments):
        result = build(graph, "-o", tmp_path / "x.cxr", *arguments)
        assert result.exit_code == 2
        assert not (tmp_path / "x.cxr").exists()
        return result.stderr.splitlines()[-1]

    assert "name a folder of them with --calibrate" in refused("--precision", "int8")
    assert "openvino does not run fp16" in refused("--precision", "fp16", "--backend", "openvino")
    result = build(graph, "-o", tmp_path / "x.cxr", "--precision", "fp16", "--backend", "openvino")
    assert "measure" not in result.stderr  # refused before the work, not after it
    assert "name a folder there too" in refused("--exclude", tmp_path / "labels.csv")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no PNG, JPEG or DICOM file there" in refused("--precision", "int8", "--calibrate", empty)
    few = tmp_path / "few"
    few.mkdir()
    for i in range(3):
        shutil.copy(chests / f"{i:08d}_000.png", few)
    assert "3 usable chest X-rays, but a calibration needs at least 16" in refused(
        "--precision", "int8", "--calibrate", few
    )


def test_a_graph_that_is_quantized_already_is_refused(int8, graph, chests, tmp_path):
    model = onnx.load(graph)
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "features.conv0.weight")
    kernel.name = "features.conv0.weight.int8"
    for node in model.graph.node:
        node.input[:] = [kernel.name if name == "features.conv0.weight" else name for name in node.input]
    onnx.save(model, tmp_path / "other.onnx")
    result = build(tmp_path / "other.onnx", "-o", tmp_path / "x.cxr", "--precision", "int8", "--calibrate", chests)
    assert result.exit_code == 2
    assert "holds another network, or is quantized already" in result.stderr


SPEC = Specification(image_size=256, crop_size=224)


def test_unreadable_files_and_legs_are_not_calibrated_on(chests, radiographs, tmp_path):
    folder = shutil.copytree(chests, tmp_path / "mixed")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    shutil.copy(radiographs / "RG3_UNCR.dcm", folder / "leg.dcm")
    chosen = choose_images([folder], 256, 0, SPEC, labels=None, exclude=None)
    assert chosen.pixels.shape == (COUNT, 1, 256, 256)
    assert chosen.left_out == (
        "1 images could not be read",
        "1 images do not look like chest X-rays",
        f"only {COUNT} of 256 images were there to calibrate on",
    )


def test_the_choice_is_seeded(chests):
    first, again, other = (
        choose_images([chests], 16, seed, SPEC, labels=None, exclude=None).sha256 for seed in (0, 0, 1)
    )
    assert first == again != other


def table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient_id", *FINDINGS])
        writer.writerows([image, patient, *[0] * 14] for image, patient in rows)
    return path


def test_patients_of_the_evaluation_are_left_out(chests, tmp_path):
    own = table(tmp_path / "own.csv", [(f"{i:08d}_000.png", i // 2) for i in range(COUNT)])
    evaluation = table(tmp_path / "evaluation.csv", [("00000000_000.png", 0), ("99999999_000.png", 77)])
    alone = choose_images([chests], COUNT, 0, SPEC, labels=None, exclude=evaluation)
    assert len(alone.pixels) == COUNT - 1  # the image that is listed
    with_patients = choose_images([chests], COUNT, 0, SPEC, labels=own, exclude=evaluation)
    assert len(with_patients.pixels) == COUNT - 2  # and the other one of patient 0
    everything = table(tmp_path / "all.csv", [(f"{i:08d}_000.png", i) for i in range(COUNT)])
    with pytest.raises(UsageError, match="0 usable chest X-rays"):
        choose_images([chests], COUNT, 0, SPEC, labels=None, exclude=everything)


def test_a_plan_needs_the_projects_own_network(center_model):
    model = onnx.ModelProto()
    model.CopyFrom(center_model)
    del model.graph.initializer[:]
    with pytest.raises(GraphError, match="another network"):
        plan_float16(model, None, check_pictures(512), lambda phase, fraction: None)
