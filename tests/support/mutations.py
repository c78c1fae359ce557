"""Changes to files for fuzzing: of bytes, and of what is in a file that is still well formed."""

import io
import json
import random
import struct
import zlib
from typing import Any

import onnx

from cxr_trt.hashing import hash_fields

ODD = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
VALUES = (None, True, -1, 0, 2**63, 1e308, "", "x" * 1000, [], {}, [[]], "../../etc/passwd", "\0", {"a": {"b": []}})


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to six changes: bits, odd values, pieces cut out, doubled or taken from another seed, an early end."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at, length = rng.randrange(len(result) + 1), rng.choice((1, 2, 4, 16, 200))
        match rng.randrange(7):
            case 0 | 1:
                if at < len(result):
                    result[at] ^= 1 << rng.randrange(8)
            case 2:
                odd = rng.choice(ODD)
                result[at : at + len(odd)] = odd
            case 3:
                del result[at : at + length]
            case 4:
                result[at:at] = result[at : at + length]
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                result[at : at + length] = other[start : start + length]
            case 6:
                if rng.random() < 0.3:
                    del result[at:]
    return bytes(result)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold, so that what was changed is read at all."""
    result = bytearray(data)
    position = 8
    while position + 12 <= len(result):
        end = position + 8 + struct.unpack_from(">I", result, position)[0]
        if end + 4 > len(result):
            break
        result[end : end + 4] = struct.pack(">I", zlib.crc32(result[position + 4 : end]))
        position = end + 4
    return bytes(result)


def repacked(data: bytes, rng: random.Random) -> bytes:
    """A PNG of one chunk of pixels, of which the inflated bytes or the header are changed."""
    start = data.index(b"IDAT") - 4
    length = struct.unpack_from(">I", data, start)[0]
    pixels = zlib.decompress(data[start + 8 : start + 8 + length])
    head = bytearray(data[:start])
    if rng.random() < 0.5:
        changed = bytearray(pixels)
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        pixels = bytes(changed)
    else:
        head[rng.randrange(16, 29)] ^= 1 << rng.randrange(8)
    packed = zlib.compress(pixels)
    body = struct.pack(">I", len(packed)) + b"IDAT" + packed + b"\0\0\0\0" + data[start + 12 + length :]
    return with_checksums(bytes(head) + body)


def changed_json(data: bytes, rng: random.Random) -> bytes:
    """Another value somewhere, in a manifest that agrees with its own hash."""
    tree = json.loads(data)
    node: Any = tree
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.3:
            node[key] = rng.choice(VALUES)
            fields = {name: value for name, value in tree.items() if name != "sha256"}
            return (json.dumps({**fields, "sha256": hash_fields(fields)}, indent=2) + "\n").encode()
        node = node[key]


def changed_graph(data: bytes, rng: random.Random) -> bytes:
    """Another name, number, type or text in some node, tensor or property of the model."""
    model = onnx.ModelProto.FromString(data)
    match rng.randrange(5):
        case 0:
            rng.choice(model.graph.node).op_type = rng.choice(("Loop", "If", "Nothing", "", "Scan", "Cast"))
        case 1:
            rng.choice(model.graph.initializer).dims[:] = rng.choice(([2**62], [-1], [0], [2**31, 2**31], []))
        case 2:
            prop = rng.choice(model.metadata_props)
            prop.value = rng.choice((prop.value + " ", "", "[" * 5000, "null", prop.value.replace("512", "9" * 18)))
        case 3:
            tensor = rng.choice(model.graph.initializer)
            tensor.data_type, tensor.raw_data = rng.randrange(30), rng.randbytes(rng.randrange(20))
        case 4:
            node = rng.choice(model.graph.node)
            del node.input[:]
            node.output.append(rng.choice(("images", "probabilities", "")))
    return model.SerializeToString()


SHAPES = ((), (0,), (14,), (18,), (18, 18), (14, 1024), (18, 1024), (64, 3, 7, 7), (64, 1, 7, 7), (1000,), (1, 1, 1))


def changed_checkpoint(rng: random.Random) -> bytes:
    """Odd tensors under the names that say whose checkpoint it is, or an odd header of ours."""
    import torch
    from safetensors.torch import save

    keys = ("features.conv0.weight", "classifier.weight", "classifier.bias", "op_threshs")
    types = (torch.float32, torch.float16, torch.int64, torch.bool)
    weights: dict[Any, Any] = {key: torch.zeros(rng.choice(SHAPES), dtype=rng.choice(types)) for key in keys}
    if rng.random() < 0.5:
        settings = {name: rng.choice(VALUES) for name in ("alpha", "channels", "squeeze_excitation", "k_max")}
        header = {"settings": settings, "weights": "trained", "sizes": [512, 448]}
        for name in rng.sample(sorted(header), rng.randrange(3)):
            header[name] = rng.choice((*VALUES, [512, "448"], [2**40, 2**40], [1e308, -1e308]))
        text = rng.choice((json.dumps(header), json.dumps(rng.choice(VALUES)), "[" * 5000))
        return save({"a": weights["op_threshs"]}, {"cxr_trt": text})
    if rng.random() < 0.3:
        weights[rng.choice((1, None, "a"))] = rng.choice((3, "a", [], torch.zeros(1).expand(2**40)))
    file = io.BytesIO()
    torch.save(weights if rng.random() < 0.8 else {"state_dict": weights}, file)
    return file.getvalue()
