import pytest

from cxr_trt.engine.gpu import cuda_core, py_cuda
from cxr_trt.errors import BackendError


@pytest.fixture
def gpu_by_cuda_core():
    """The first GPU, by cuda-core."""
    try:
        return cuda_core.gpus()[0]
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["cuda-core", "PyCUDA"])
def gpu(request):
    """The first GPU, by each adapter that is installed."""
    if request.param == "cuda-core":
        return request.getfixturevalue("gpu_by_cuda_core")
    pytest.importorskip("pycuda.driver", reason="PyCUDA cannot be imported", exc_type=ImportError)
    return py_cuda.gpus()[0]
