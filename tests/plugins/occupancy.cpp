// NVIDIA's occupancy calculator, a header of the CUDA toolkit, behind a C function for ctypes.
#include <cuda_occupancy.h>

#include <limits>

// Blocks that fit on a multiprocessor at a time; -1 for what the calculator does not know.
extern "C" int resident_blocks(int capability, int threads_of_sm, int registers_of_sm, int shared_of_sm,
                               int threads_of_block, int registers, int shared_of_block) {
  cudaOccDeviceProp device = {};
  device.computeMajor = capability / 10, device.computeMinor = capability % 10;
  device.maxThreadsPerBlock = 1024, device.warpSize = 32, device.numSms = 1;
  device.maxThreadsPerMultiprocessor = threads_of_sm;
  device.regsPerBlock = device.regsPerMultiprocessor = registers_of_sm;
  device.sharedMemPerBlock = device.sharedMemPerBlockOptin = 48 << 10;
  device.sharedMemPerMultiprocessor = shared_of_sm;
  device.reservedSharedMemPerBlock = capability >= 80 ? 1024 : 0;
  cudaOccFuncAttributes kernel = {};
  kernel.maxThreadsPerBlock = threads_of_block, kernel.numRegs = registers;
  kernel.maxDynamicSharedSizeBytes = std::numeric_limits<int>::max();
  cudaOccDeviceState state = {};
  cudaOccResult result = {};
  const auto error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads_of_block,
                                                             static_cast<size_t>(shared_of_block));
  return error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : -1;
}
