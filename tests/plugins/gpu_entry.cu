// The launcher behind a C function for ctypes, for tests and the benchmark on a GPU. nvcc only.
#include "max_min_pool.cuh"

extern "C" int run_on_gpu(int half, const void* maps, float* scores, const max_min_pool::Arguments* a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  return half ? max_min_pool::launch(static_cast<const __half*>(maps), scores, *a, on)
              : max_min_pool::launch(static_cast<const float*>(maps), scores, *a, on);
}
