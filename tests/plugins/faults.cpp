// Kernels that misuse barriers and shuffles, to see that the emulation says so.
#include "cuda_on_cpu.h"

namespace {

void fine(int) {
  const int lane = threadIdx.x % 32;
  __syncthreads();
  if (lane < 16) __shfl_xor_sync(0x0000ffff, lane, 8);
  if (lane >= 16) __shfl_xor_sync(0xffff0000, lane, 8);
  __syncwarp();
}
void barrier_that_a_warp_skips(int) {
  if (threadIdx.x < 32) __syncthreads();
}
void barrier_that_a_lane_skips(int) {
  if (threadIdx.x % 32 != 7) __syncwarp();
}
void two_places(int) {
  if (threadIdx.x % 32 < 16) {
    __syncwarp();
  } else {
    __syncwarp();
  }
}
void lane_outside_its_mask(int) { __shfl_xor_sync(0x0000ffff, 1, 1); }
void read_of_an_unnamed_lane(int) {
  if (threadIdx.x % 32 < 16) __shfl_xor_sync(0x0000ffff, 1, 16);
}

}  // namespace

extern "C" int misuse(int which, unsigned seed, char* message, size_t size) {
  void (*const kernels[])(int) = {fine,       barrier_that_a_warp_skips, barrier_that_a_lane_skips,
                                  two_places, lane_outside_its_mask,     read_of_an_unnamed_lane};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(2);
  config.blockDim = dim3(64);
  cuda_on_cpu::machine.seed = seed;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernels[which], 0);
  std::snprintf(message, size, "%s", cuda_on_cpu::machine.failure.c_str());
  return error;
}
