"""What the commands of the documentation are given: files and folders under the names that the pages use."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from cheap_engine import cheap_graph
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.findings import FINDINGS
from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess
from cxr_trt.spec import Specification
from cxr_trt.views import Size

IMAGES = {"xrays": 3, "validation": 20, "test": 4, "test-images": 2, "images": 8}
"""Folders of X-rays, and how many are in each."""
SMALL = Specification(image_size=Size.square(96), crop_size=Size.square(64))

CARD = """findings = ["Atelectasis", "Effusion"]
image_size = 32
mean = [0.5]
std = [0.25]
"""

Make = Callable[[Path], Any]


class Inputs:
    """Makes an input at a path, by its name on a page.

    Engines are the cheap one unless the page builds them, so that the time goes into commands, not networks.
    `run/best.safetensors` has the weights of the shipped network `paper`, for images of 96 pixels.
    """

    def __init__(self, radiographs: Path, cheap_bundle: Path, network: Any) -> None:
        self._radiographs, self._cheap_bundle, self._network = radiographs, cheap_bundle, network
        self._radiograph = preprocess(decode((radiographs / "RG1_UNCR.dcm").read_bytes()).pixels, 512)
        self._makers: dict[str, Make] = {
            **dict.fromkeys(IMAGES, self._images),
            **dict.fromkeys(("labels.csv", "validation-labels.csv", "test-labels.csv"), self._labels),
            "key": lambda path: path.write_text("0123456789abcdef" * 2),
            "boxes.csv": self._boxes,
            "Data_Entry_2017_v2020.csv": self._nih,
            "test_list.txt": lambda path: self._nih(path.with_name("Data_Entry_2017_v2020.csv")),
            "model.onnx": lambda path: cheap_graph().save(path),
            "run/best.safetensors": self._trained,
            "weights.pt": self._state_dict,
            "model.pth.tar": self._chexnet,
            "xrv.pt": self._xrv,
            "network.onnx": self._network_file,
            "network.toml": lambda path: path.write_text(CARD),
            "findings.toml": lambda path: path.write_text(CARD.splitlines()[0] + "\n"),
            "convnext.pt": self._timm,
            "resnet.pth": self._torchvision,
        }

    def make(self, word: str, folder: Path) -> None:
        """Make what a word of a command names, if it names an input that is not there yet."""
        name = word.rstrip("/")
        path = folder / name
        if path.exists() or Path(name).is_absolute():
            return
        if name in self._makers:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._makers[name](path)
        elif path.suffix == ".cxr":
            shutil.copytree(self._cheap_bundle, path)

    def _images(self, folder: Path) -> None:
        """One radiograph as it is, and turned, shifted and darkened more and more."""
        folder.mkdir()
        count = IMAGES[folder.name]
        if folder.name != "images":
            shutil.copy(self._radiographs / "RG1_UNCR.dcm", folder)
        for i in range(count - (folder.name != "images")):
            turn = cv2.getRotationMatrix2D((256, 256), i % 7 - 3, 1.05)
            moved = cv2.warpAffine(self._radiograph, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
            cv2.imwrite(str(folder / f"{i:08d}_000.png"), (moved * (1 - 0.02 * i)).astype(np.uint8))

    @staticmethod
    def _labels(path: Path) -> None:
        """Every other image has every finding: AUCs near 0.5, and enough of both to calibrate."""
        names = ["RG1_UNCR.dcm", *(f"{i:08d}_000.png" for i in range(max(IMAGES.values())))]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [
                    ["image", "patient_id", *FINDINGS],
                    *([name, f"p{i}", *[(i + 1) % 2] * len(FINDINGS)] for i, name in enumerate(names)),
                ]
            )

    @staticmethod
    def _boxes(path: Path) -> None:
        path.write_text("image,finding,x,y,width,height\n00000000_000.png,Mass,100,120,200,180\n")

    @staticmethod
    def _nih(path: Path) -> None:
        """NIH's three files, for the folder `images`: two of train_val, six of test."""
        names = [f"{i:08d}_000.png" for i in range(IMAGES["images"])]
        rows = [f"{name},{'Mass|Nodule' if i % 2 else 'No Finding'},0,{i},50,F,PA" for i, name in enumerate(names)]
        header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
        path.write_text("\n".join([header, *rows]) + "\n")
        (path.parent / "train_val_list.txt").write_text("\n".join(names[:2]) + "\n")
        (path.parent / "test_list.txt").write_text("\n".join(names[2:]) + "\n")

    def _trained(self, path: Path) -> None:
        """The shipped weights as `python -m train` would save them after a training on small images."""
        from cxr_trt.model.checkpoint import save_checkpoint

        save_checkpoint(
            self._network, path, weights="demonstration", sizes=(SMALL.image_size.height, SMALL.crop_size.height)
        )

    def _state_dict(self, path: Path) -> None:
        import torch

        torch.save(self._network.state_dict(), path)

    @staticmethod
    def _chexnet(path: Path) -> None:
        import torch
        from torchvision.models import densenet121

        torch.manual_seed(0)
        network = densenet121(weights=None)
        network.classifier = torch.nn.Sequential(torch.nn.Linear(1024, len(FINDINGS)), torch.nn.Sigmoid())
        weights = {f"module.densenet121.{key}": value for key, value in network.state_dict().items()}
        torch.save({"epoch": 1, "state_dict": weights}, path)

    @staticmethod
    def _network_file(path: Path) -> None:
        """Two logits: what two kernels find in a picture, on average."""
        kernel = np.random.default_rng(0).normal(size=(2, 1, 4, 4)).astype(np.float32)
        nodes = [
            helper.make_node("Conv", ["picture", "kernel"], ["features"], strides=[4, 4]),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ]
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 1, 32, 32])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
            [numpy_helper.from_array(kernel, "kernel")],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

    @staticmethod
    def _timm(path: Path) -> None:
        import timm
        import torch

        torch.manual_seed(0)
        torch.save(timm.create_model("convnext_pico", num_classes=2).state_dict(), path)

    @staticmethod
    def _torchvision(path: Path) -> None:
        import torch
        from torchvision.models import resnet18

        torch.manual_seed(0)
        torch.save(resnet18(num_classes=2).state_dict(), path)

    @staticmethod
    def _xrv(path: Path) -> None:
        import torch
        import torchxrayvision

        torch.manual_seed(0)
        network = torchxrayvision.models.DenseNet(weights=None)
        network.op_threshs = torch.tensor(torchxrayvision.models.model_urls["all"]["op_threshs"])
        torch.save(network.state_dict(), path)
