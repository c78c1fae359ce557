// The launcher of max_min_pool.cuh, for code that is not compiled by nvcc.
#pragma once

#include <cuda_fp16.h>
#include <driver_types.h>

#include "arguments.h"

namespace max_min_pool {

// Puts the pooling on a stream. T is float or __half; maps and scores are device memory, aligned to their types.
// Returns cudaErrorInvalidValue without a launch if problem() finds something wrong. max_blocks is for tests.
template <typename T>
cudaError_t launch(const T* maps, float* scores, const Arguments& a, cudaStream_t stream, int max_blocks = 1 << 30);

}  // namespace max_min_pool
