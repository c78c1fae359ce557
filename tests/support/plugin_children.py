"""What the tests do with the plugin in a process of its own: python plugin_children.py NAME PLUGIN ...; prints JSON."""

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import onnx


def registry(plugin: str) -> None:
    """The plugin in the registry of TensorRT's lean runtime."""
    import tensorrt_lean_bindings as trt

    def create(creator, k_max):
        numbers = {"k_max": np.array([k_max], np.int32), "k_min": np.array([1], np.int32)}
        fields = [trt.PluginField(name, value, trt.PluginFieldType.INT32) for name, value in numbers.items()]
        fields.append(trt.PluginField("alpha", np.array([0.7], np.float32), trt.PluginFieldType.FLOAT32))
        return creator.create_plugin("pool", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD)

    registry = trt.get_plugin_registry()
    before = {each.name for each in registry.all_creators}
    handle = registry.load_library(plugin)
    facts = {"loaded": handle is not None}
    facts["new"] = sorted({each.name for each in registry.all_creators} - before)
    creator = registry.get_creator("MaxMinPool", "1", "")
    facts["creator"] = [creator.interface_info.kind, creator.name, creator.plugin_version, creator.plugin_namespace]
    facts["fields"] = {field.name: field.type.name for field in creator.field_names}
    made = create(creator, 5)
    facts["made"] = made.interface_info.kind
    facts["refused"] = create(creator, 0) is None
    del made, creator
    registry.deregister_library(handle)
    facts["gone"] = registry.get_creator("MaxMinPool", "1", "") is None
    print(json.dumps(facts))


def parser(plugin: str, watcher: str, model: str) -> None:
    """The plugin and a scoring graph in TensorRT-RTX's parser, as the builder for TensorRT brings them together."""
    from cxr_trt.engine.backend import BuildOptions
    from cxr_trt.engine.gpu import tensorrt
    from cxr_trt.engine.gpu.tensorrt_plugin import Plugin, load_plugin

    def load_and_watch(*arguments):
        """The registry gives the library a way to its own logger, so ours comes after it."""
        load_plugin(*arguments)
        ctypes.CDLL(watcher).print_log(plugin.encode())

    tensorrt.load_plugin = load_and_watch
    backend = tensorrt.TensorRTBackend("tensorrt_rtx")
    backend._build(onnx.load(model), None, Plugin(Path(plugin), ""), BuildOptions(2))


if __name__ == "__main__":
    {"registry": registry, "parser": parser}[sys.argv[1]](*sys.argv[2:])
