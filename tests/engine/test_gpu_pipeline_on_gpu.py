"""Batches in flight on a real GPU: everything but TensorRT, in whose place PyTorch computes the simulated network."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from simulated_gpu import expected  # noqa: E402

from cxr_trt.engine.gpu.pipeline import BATCHES_IN_FLIGHT, GpuRunner, Tensor  # noqa: E402
from tests.engine.test_gpu_pipeline import in_turn  # noqa: E402

pytestmark = pytest.mark.gpu

SIZE, MAX_BATCH = 512, 8
BUSY = 2048  # side of a matrix product that makes a computation take longer than its copies


class TorchNetwork:
    """`SimulatedNetwork` on a GPU. Its floats lie in the workspace: nothing is allocated while a graph is captured."""

    max_batch = MAX_BATCH

    def __init__(self):
        if not torch.cuda.is_available():
            pytest.skip("PyTorch sees no NVIDIA GPU")
        self.tensors = {
            "images": Tensor((1, SIZE, SIZE), np.dtype(np.uint8)),
            "probabilities": Tensor((14,), np.dtype(np.float32)),
            "class_maps": Tensor((14, 3, 3), np.dtype(np.float32)),
        }
        self.k = torch.arange(14, device="cuda", dtype=torch.float32)
        self.steps = self.k / 100
        self.busy = torch.zeros(2, BUSY, BUSY, device="cuda")
        self.computed, self.closed = [], False
        torch.mm(self.busy[0], self.busy[0], out=self.busy[1])  # makes cuBLAS's handle and workspace
        torch.cuda.synchronize()

    def workspace_size(self, batch):
        return batch * (SIZE * SIZE + 64) * 4

    def context(self, workspace, size, batch=None):
        return TorchContext(self, on_gpu(workspace, (size // 4,), "<f4"))

    def close(self):
        self.closed = True


class TorchContext:
    def __init__(self, network, workspace):
        self.network, self.workspace = network, workspace

    def enqueue(self, batch, addresses, stream):
        network = self.network
        network.computed.append(batch)
        images, probabilities, maps = (
            on_gpu(addresses[name], (batch, *tensor.shape), tensor.dtype.str)
            for name, tensor in network.tensors.items()
        )
        floats = self.workspace[: batch * SIZE * SIZE].view(batch, 1, SIZE, SIZE)
        means = self.workspace[batch * SIZE * SIZE :][:batch].view(batch, 1)
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
            torch.mm(network.busy[0], network.busy[0], out=network.busy[1])
            floats.copy_(images)
            torch.mean(floats.view(batch, -1), 1, keepdim=True, out=means)
            torch.add(network.steps, means, alpha=1 / 300, out=probabilities)
            torch.mul(floats[:, :, :3, :3], network.k[:, None, None], out=maps)

    def close(self):
        del self.workspace


def on_gpu(pointer, shape, typestr):
    """Device memory as a tensor."""
    interface = {"data": (pointer, False), "shape": shape, "typestr": typestr, "version": 3}
    return torch.as_tensor(type("Memory", (), {"__cuda_array_interface__": interface})(), device="cuda")


@pytest.fixture
def opened(gpu):
    with gpu.current():
        network = TorchNetwork()
    runner = GpuRunner(gpu, network)
    yield network, runner
    runner.close()
    assert network.closed


def check(outputs, images):
    probabilities, maps = expected(images[:, None])
    np.testing.assert_allclose(outputs.probabilities, probabilities, rtol=1e-5)
    np.testing.assert_allclose(outputs.class_maps, maps, rtol=1e-6)


def test_every_batch_gets_its_own_results(opened):
    network, runner = opened
    rng = np.random.default_rng(0)
    sizes = [8] * 20 + rng.integers(1, 9, 40).tolist() + [5] * 20
    batches = [(rng.integers(0, 256, (size, SIZE, SIZE), np.uint8), True) for size in sizes]
    count = 0
    for (images, _), outputs in in_turn(runner, batches):
        check(outputs, images)
        count += 1
    assert count == len(sizes)
    assert set(network.computed) == set(sizes)


def test_a_batch_alone(opened):
    _, runner = opened
    images = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE), np.uint8)
    for _ in range(5):
        check(runner.submit(list(images), True)(), images)


def test_graphs_take_over_from_the_second_batch_in_a_slot(gpu_by_cuda_core):
    network = TorchNetwork()
    runner = GpuRunner(gpu_by_cuda_core, network)
    rng = np.random.default_rng(2)
    for _ in range(12):
        images = rng.integers(0, 256, (MAX_BATCH, SIZE, SIZE), np.uint8)
        check(runner.submit(list(images), True)(), images)
    runner.close()
    assert network.computed == [MAX_BATCH] * 2 * BATCHES_IN_FLIGHT  # in each slot once, and once for its graph


def test_closing_waits_for_what_is_in_flight(gpu):
    with gpu.current():
        network = TorchNetwork()
    runner = GpuRunner(gpu, network)
    images = np.zeros((MAX_BATCH, SIZE, SIZE), np.uint8)
    for _ in range(runner.in_flight):
        runner.submit(list(images), True)
    runner.close()
    with gpu.current():
        torch.cuda.synchronize()  # an illegal access would be reported here
    assert network.closed


def test_what_is_closed_is_given_back(gpu):
    images, free = np.zeros((MAX_BATCH, SIZE, SIZE), np.uint8), []
    with gpu.current():
        network = TorchNetwork()
    for _ in range(4):
        runner = GpuRunner(gpu, network)
        for _ in range(5):
            runner.submit(list(images), True)()
        runner.close()
        torch.cuda.synchronize()
        with gpu.current():
            free.append(gpu.memory().free)
    assert free[1] - free[-1] < network.workspace_size(MAX_BATCH)  # after the first, all code is loaded
