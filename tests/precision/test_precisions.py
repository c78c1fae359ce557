"""`cxr-trt build-engine --precision`: what is measured, kept, refused, and what the engines then say."""

import csv
import json
import shutil

import numpy as np
import onnx
import pytest
from cheap_engine import cheap_graph
from onnx import numpy_helper

from cxr_trt.engine.manifest import MANIFEST_FILE, read_manifest
from cxr_trt.errors import BundleError, GraphError, UsageError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.hashing import hash_file, to_hashed_json
from cxr_trt.precision.calibration_images import choose_images
from cxr_trt.precision.plan import PRECISION_FILE, PrecisionPlan
from cxr_trt.precision.planning import plan_float16
from cxr_trt.progress import ignore_progress
from cxr_trt.score.engine import Engine
from cxr_trt.spec import Specification
from cxr_trt.views import Size

COUNT = 18  # images of the fixture `chests`


@pytest.fixture
def build(cli):
    return lambda *arguments: cli("build-engine", "--no-tune", *arguments)


def test_an_int8_bundle_says_how_it_was_calibrated(int8_bundle):
    manifest = read_manifest(int8_bundle)
    assert manifest.precision == "int8"
    calibration = manifest.settings["int8"]
    assert calibration["images"] == 16
    assert calibration["method"] == "max"
    assert len(calibration["images_sha256"]) == len(calibration["weights_sha256"]) == 64
    plan = PrecisionPlan.from_json((int8_bundle / PRECISION_FILE).read_text())
    units = set(plan.calibration.sensitivity)
    assert len(units) == 58 + 3  # dense layers and transitions
    assert len(plan.calibration.features) == 58 + 4  # dense layers, and what enters the blocks
    assert set(calibration["floating_point_layers"]) < units
    assert 0 < manifest.settings["parity"]["mean"] < 0.03
    assert manifest.settings["parity"]["images"] == 4


def test_int8_is_really_int8(int8_bundle):
    """OpenVINO fuses the quantization into its own form: int8 kernels in the file that it keeps."""
    assert (int8_bundle / "openvino.bin").stat().st_size < 12e6  # 28 MB in float32


def test_a_rebuilt_bundle_keeps_precision_and_calibration(build, int8_bundle, tmp_path):
    result = build(int8_bundle, "-o", tmp_path / "again.cxr", "--backend", "onnxruntime")
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "again.cxr")
    assert manifest.precision == "int8"
    assert manifest.settings["int8"] == read_manifest(int8_bundle).settings["int8"]
    operators = {node.op_type for node in onnx.load(tmp_path / "again.cxr" / "engine.onnx").graph.node}
    assert "QuantizeLinear" in operators
    with Engine(int8_bundle) as one, Engine(tmp_path / "again.cxr") as other:
        images = check_pictures(288)[:1]
        np.testing.assert_allclose(one.run(images).probabilities, other.run(images).probabilities, atol=0.02)


def test_a_calibration_holds_for_other_views(build, int8_bundle, tmp_path):
    result = build(int8_bundle, "-o", tmp_path / "dense.cxr", "--views", "dense", "--backend", "openvino")
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "dense.cxr")
    assert (manifest.precision, manifest.graph.spec.views) == ("int8", "dense")
    assert manifest.settings["parity"]["mean"] < 0.03


def test_a_calibration_for_other_weights_is_refused(int8_bundle, tmp_path):
    """Hashes that fit do not make a calibration fit: this bundle was put together from two."""
    bundle = shutil.copytree(int8_bundle, tmp_path / "mixed.cxr")
    plan = json.loads((bundle / PRECISION_FILE).read_text())
    plan["calibration"]["weights_sha256"] = "0" * 64
    (bundle / PRECISION_FILE).write_text(json.dumps(plan))
    _vouch_for(bundle, PRECISION_FILE)
    with pytest.raises(BundleError, match="its calibration was made for other weights; build it again"):
        Engine(bundle)


def test_an_int8_bundle_without_its_record_is_refused(int8_bundle, tmp_path):
    bundle = shutil.copytree(int8_bundle, tmp_path / "bare.cxr")
    (bundle / PRECISION_FILE).unlink()
    _vouch_for(bundle, PRECISION_FILE)
    with pytest.raises(BundleError, match=r"precision\.json is missing; build it again"):
        Engine(bundle)


def _vouch_for(bundle, name):
    """Make the manifest vouch for what is in the bundle now."""
    fields = json.loads((bundle / MANIFEST_FILE).read_text())
    del fields["sha256"]
    if (bundle / name).exists():
        fields["files"][name] = hash_file(bundle / name)
    else:
        del fields["files"][name]
    (bundle / MANIFEST_FILE).write_text(to_hashed_json(fields))


def test_float16_keeps_the_scores_and_says_how_much_room_there_is(float16_bundle, bundles):
    manifest = read_manifest(float16_bundle)
    assert (manifest.precision, manifest.backend) == ("fp16", "onnxruntime")
    assert manifest.settings["float32_layers"] == []
    assert manifest.settings["least_headroom"]["times"] > 8
    images = check_pictures(288)
    with Engine(float16_bundle) as float16, Engine(bundles["fp32"]) as float32:
        difference = np.abs(float16.run(images).probabilities - float32.run(images).probabilities).max()
    assert 1e-6 < difference < 5e-3


def test_what_float16_cannot_hold_stays_float32(build, graph_file, tmp_path):
    """One dense layer is made ten thousand times larger, and what reads it so much smaller: the network is the same."""
    layer, factor = "features.denseblock2.denselayer2", np.float32(1e4)
    model = onnx.load(graph_file)
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
    plan = plan_float16(ScoringGraph.load(tmp_path / "large.onnx"), check_pictures(288), ignore_progress)
    assert f"{layer}.conv2" in plan.float32
    assert "features.denseblock2.denselayer2.conv1" not in plan.float32
    assert "features.denseblock3.denselayer1.conv1" not in plan.float32
    result = build(tmp_path / "large.onnx", "-o", tmp_path / "large.cxr", "--precision", "fp16")
    assert result.exit_code == 0, result.output  # the parity check passed
    assert read_manifest(tmp_path / "large.cxr").settings["float32_layers"] == list(plan.float32)


def test_a_precision_that_cannot_be_had_is_one_sentence(build, graph_file, tmp_path, chests):
    def refused(*arguments):
        result = build(graph_file, "-o", tmp_path / "x.cxr", *arguments)
        assert result.exit_code == 2
        assert not (tmp_path / "x.cxr").exists()
        return result.stderr.splitlines()[-1]

    assert "name a folder of them with --calibrate" in refused("--precision", "int8")
    assert "openvino does not run fp16" in refused("--precision", "fp16", "--backend", "openvino")
    result = build(graph_file, "-o", tmp_path / "x.cxr", "--precision", "fp16", "--backend", "openvino")
    assert "measure" not in result.stderr  # refused before the work, not after it
    assert "add --calibrate FOLDER" in refused("--exclude", tmp_path / "labels.csv")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no DICOM, PNG, JPEG or TIFF file" in refused("--precision", "int8", "--calibrate", empty)
    few = tmp_path / "few"
    few.mkdir()
    for i in range(3):
        shutil.copy(chests / f"{i:08d}_000.png", few)
    assert "3 usable chest X-rays, but a calibration needs at least 16" in refused(
        "--precision", "int8", "--calibrate", few
    )


def test_a_graph_that_is_quantized_already_is_refused(build, graph_file, chests, tmp_path):
    model = onnx.load(graph_file)
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "features.conv0.weight")
    kernel.name = "features.conv0.weight.int8"
    for node in model.graph.node:
        node.input[:] = [kernel.name if name == "features.conv0.weight" else name for name in node.input]
    onnx.save(model, tmp_path / "other.onnx")
    result = build(tmp_path / "other.onnx", "-o", tmp_path / "x.cxr", "--precision", "int8", "--calibrate", chests)
    assert result.exit_code == 2
    assert "holds another network, or is already quantized" in result.stderr


SPEC = Specification(image_size=Size.square(256), crop_size=Size.square(224))


def test_unreadable_files_and_legs_are_not_calibrated_on(chests, radiographs, tmp_path):
    folder = shutil.copytree(chests, tmp_path / "mixed")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    shutil.copy(radiographs / "RG3_UNCR.dcm", folder / "leg.dcm")
    chosen = choose_images([folder], 256, 0, SPEC, labels=None, exclude=None)
    assert chosen.pixels.shape == (COUNT, 1, 256, 256)
    assert chosen.left_out == (
        "1 image left out: could not be read",
        "1 image left out: not like a chest X-ray",
        f"calibrated on {COUNT} images instead of 256, because there were no more",
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


def test_a_plan_needs_the_projects_own_network():
    with pytest.raises(GraphError, match="another network"):
        plan_float16(cheap_graph(), check_pictures(512), ignore_progress)
