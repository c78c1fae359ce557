// The launcher of max_min_pool.cuh, for code that nvcc does not compile.
#pragma once

#include <cuda_fp16.h>
#include <driver_types.h>

#include "arguments.h"

namespace max_min_pool {

// Puts the pooling on a stream. T: float or __half; maps and scores: device memory, aligned to their types. Returns
// cudaErrorInvalidValue, without a launch, for arguments that problem() describes. max_blocks is for tests.
template <typename T>
cudaError_t launch(const T* maps, float* scores, const Arguments& a, cudaStream_t stream, int max_blocks = 1 << 30);

}  // namespace max_min_pool
