"""The scoring graph of each system: equal to PyTorch in ONNX Runtime and OpenVINO, and built by TensorRT-RTX.

Real backbones, small X-rays. What a system adds to its backbone is tested in every precision in a module of its own.
"""

import numpy as np
import pytest
from small_systems import settle

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from cxr_trt.engine.backend import BuildOptions  # noqa: E402
from cxr_trt.engine.build import BuildRequest, build_bundle  # noqa: E402
from cxr_trt.engine.cpu.openvino import has_bfloat16  # noqa: E402
from cxr_trt.engine.registry import BACKENDS  # noqa: E402
from cxr_trt.errors import BackendError  # noqa: E402
from cxr_trt.export.from_checkpoint import export_checkpoint  # noqa: E402
from cxr_trt.export.pictures import check_pictures  # noqa: E402
from cxr_trt.model.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from cxr_trt.precision import planning  # noqa: E402
from cxr_trt.precision.calibration_images import CalibrationImages  # noqa: E402
from cxr_trt.precision.int8_calibration import unit_of  # noqa: E402
from cxr_trt.precision.plan import PrecisionPlan  # noqa: E402
from cxr_trt.precision.planning import plan_int8  # noqa: E402
from cxr_trt.score.engine import Engine  # noqa: E402
from cxr_trt.systems import SYSTEMS, find_system  # noqa: E402

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow, pytest.mark.long]
SIZES = {
    "resnet50-lse": (64, 64),
    "chexnet-2017": (64, 64),
    "edge": (144, 128),
    "agcnn-resnet50": (112, 96),
    "agcnn-densenet121": (112, 96),
    "li2018-20": (64, 64),
    "yao2018-r5": (128, 128),
    "yao2017-a": (128, 128),
    "yao2017-b2": (128, 128),
    "yao2017-b1-greedy": (128, 128),
    "dnetloc": (256, 256),
    "dualnet": (64, 64),
}


def test_each_system_but_the_papers_is_among_those_here():
    assert {find_system(setting).name for setting in SIZES} == {system.name for system in SYSTEMS} - {"yan2018"}


@pytest.mark.parametrize("setting", SIZES)
def test_graph_and_engines_agree_with_pytorch(setting, tmp_path, monkeypatch):
    image_size, crop_size = SIZES[setting]
    system = find_system(setting)
    torch.manual_seed(0)
    network = system.build(setting)
    settle(network, torch.randn(4, len(system.mean), system.planes * crop_size, crop_size))
    save_checkpoint(network, tmp_path / "a.safetensors", weights="untrained", setting=setting, sizes=SIZES[setting])
    exported = export_checkpoint(tmp_path / "a.safetensors", view_set="center" if image_size > crop_size else None)
    assert exported.difference < 1e-5
    assert exported.graph.has_class_maps == (system.maps != "none")

    spec = exported.graph.spec
    pictures, start = check_pictures(spec.image_size), (image_size - crop_size) // 2
    grey = pictures[:, :, start : start + spec.crop_size.height, start : start + crop_size] / 255
    mean, std = (np.reshape(values, (1, -1, 1, 1)) for values in (spec.mean, spec.std))
    with torch.inference_mode():
        crops = torch.from_numpy(((grey - mean) / std).astype(np.float32))
        expected = torch.sigmoid(load_checkpoint(tmp_path / "a.safetensors").network(crops)).numpy()
    for backend in ("onnxruntime", "openvino"):
        build_bundle(BuildRequest(exported.graph, BACKENDS[backend]), tmp_path / f"{backend}.cxr")
        with Engine(tmp_path / f"{backend}.cxr") as engine:
            found = engine.run(pictures[:, 0], class_maps=False).probabilities
        np.testing.assert_allclose(found, expected, atol=1e-5)

    monkeypatch.setattr(
        planning, "scan_sensitivity", lambda model, thresholds, *_: dict.fromkeys(map(unit_of, thresholds), 0.0)
    )
    images = CalibrationImages(np.concatenate([pictures, 255 - pictures]), "0" * 64, 0, ())
    int8 = plan_int8(exported.graph, images, "max", lambda *_: None)
    plans = [(int8, "openvino"), (PrecisionPlan("fp16"), "onnxruntime")]
    if has_bfloat16():
        plans.append((PrecisionPlan("bf16"), "openvino"))
    if not BACKENDS["tensorrt-rtx"].why_not_build():
        plans += [(plan, "tensorrt-rtx") for plan in (PrecisionPlan(), PrecisionPlan("fp16"), int8)]
    for plan, backend in plans:
        bundle = tmp_path / f"{backend}-{plan.precision}.cxr"
        request = BuildRequest(exported.graph, BACKENDS[backend], plan, BuildOptions(2), images=images.pixels)
        reason = why_not_built(request, bundle)
        assert bundle.exists() == (reason is None)
        if plan.precision == "bf16" and exported.graph.keeps_float32:
            assert "must stay float32" in reason
        elif reason is not None:  # random weights can be more sensitive than a precision allows
            moved = exported.graph.keeps_float32 and "moves the second pass's box in every X-ray" in reason
            assert moved or (backend != "tensorrt-rtx" and f"{plan.precision} allows" in reason)


def why_not_built(request, bundle):
    try:
        build_bundle(request, bundle)
    except BackendError as error:
        return str(error)
    return None
