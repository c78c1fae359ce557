import json
import os
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from cxr_trt.errors import CheckpointError
from cxr_trt.model.checkpoint import load_checkpoint, save_checkpoint
from cxr_trt.model.network import Network
from cxr_trt.model.settings import SETTINGS


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network(SETTINGS["single-map"])


@pytest.fixture
def saved(network, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(network, path, weights="untrained")
    return path


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_round_trip(network, saved):
    checkpoint = load_checkpoint(saved)
    assert checkpoint.network.settings == SETTINGS["single-map"]
    assert checkpoint.weights == "untrained"
    assert not checkpoint.network.training
    assert equal(checkpoint.network, network)


def test_a_state_dict_needs_its_setting(network, tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"add --setting paper\|chexnet"):
        load_checkpoint(path)
    assert equal(load_checkpoint(path, "single-map").network, network)
    with pytest.raises(CheckpointError, match="wrong shape transfer"):
        load_checkpoint(path, "paper")


def test_a_setting_that_contradicts_the_header_is_refused(saved):
    with pytest.raises(CheckpointError, match="not --setting paper"):
        load_checkpoint(saved, "paper")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"maps_per_finding": 10**9}, "maps_per_finding is 1000000000; it must be from 1 to 1024"),
        ({"channels": "3"}, "channels is '3'; it must be from 1 to 3"),
        ({"layers": 5}, "unexpected keyword argument 'layers'"),
        ({"squeeze_excitation": [0]}, r"squeeze_excitation is \[0\]; it must be true or false"),
        ({"alpha": "0.7"}, "holds sizes, names or statistics"),
        ({"alpha": 1e999}, "holds sizes, names or statistics"),
    ],
)
def test_a_header_that_asks_for_an_odd_network_is_refused(saved, fields, sentence):
    save_file(load_file(saved), saved, metadata={"cxr_trt": json.dumps({"settings": fields})})
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        *("3", "null", "[]", "[" * 100_000, '{"settings": 3}'),
        *(
            f'{{"settings": {{}}, "sizes": {sizes}}}'
            for sizes in ("5", "[1]", '["512", "448"]', "[1e9, 1e9]", "[32, 0]")
        ),
        '{"settings": {}, "sizes": [1000000000, 1000000000]}',
        '{"settings": {"maps_per_finding": 1}, "weights": ["trained"]}',
    ],
)
def test_a_header_that_makes_no_sense_is_one_sentence(saved, header):
    save_file(load_file(saved), saved, metadata={"cxr_trt": header})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unexpected_keys_are_named(saved):
    weights = load_file(saved)
    weights["classifier.weight"] = weights.pop("features.conv0.weight")
    save_file(weights, saved)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved, "single-map")
    assert "missing features.conv0.weight; unexpected classifier.weight" in str(caught.value)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Evil()}, "evil.pt")
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        load_checkpoint(tmp_path / "evil.pt", "paper")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "weights",
    [
        {1: torch.zeros(1)},
        {"a": 1},
        [torch.zeros(1)],
        {"state_dict": {"a": None}},
        {"a": torch.zeros(3, device="meta")},
        {"a": torch.zeros(1).expand(10**13)},
    ],
)
def test_what_is_no_plain_state_dict_is_refused(tmp_path, weights):
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a plain state dict; save it with"):
        load_checkpoint(tmp_path / "a.pt", "paper")


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1 << 20)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as whole,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as b,
    ):
        for member in whole.infolist():
            b.writestr(member.filename, whole.read(member))
    assert (tmp_path / "b.pt").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="it is compressed"):
        load_checkpoint(tmp_path / "b.pt", "paper")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04."])
def test_rubbish_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tmp_path / name, "paper")


def test_half_precision_is_widened_and_double_is_refused(network, tmp_path):
    path = tmp_path / "a.pt"
    weights = {
        key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in network.state_dict().items()
    }
    torch.save(weights, path)
    loaded = load_checkpoint(path, "single-map").network.state_dict()
    assert all(torch.equal(loaded[key], weights[key].float()) for key in weights if weights[key].is_floating_point())
    torch.save({**weights, "features.norm0.bias": weights["features.norm0.bias"].double()}, path)
    with pytest.raises(CheckpointError, match=r"not float32, float16 or bfloat16 features\.norm0\.bias"):
        load_checkpoint(path, "single-map")


def test_a_truncated_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(saved)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
