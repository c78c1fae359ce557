// The kernel, the reference and the argument check behind C functions for ctypes. g++ only.
#include "max_min_pool.cuh"
#include "reference.h"

namespace {

int tell(const std::string& text, char* message, size_t size) {
  std::snprintf(message, size, "%s", text.c_str());
  return text.empty() ? 0 : 1;
}

}  // namespace

extern "C" {

// Returns the launcher's error; message says what the emulation saw.
int run_on_cpu(int half, const void* maps, float* scores, const max_min_pool::Arguments* a, int max_blocks,
               unsigned seed, int64_t only_block, char* message, size_t size) {
  auto& machine = cuda_on_cpu::machine;
  machine.seed = seed;
  machine.only_block = only_block;
  machine.failure.clear();
  const cudaError_t error =
      half ? max_min_pool::launch(static_cast<const __half*>(maps), scores, *a, nullptr, max_blocks)
           : max_min_pool::launch(static_cast<const float*>(maps), scores, *a, nullptr, max_blocks);
  tell(machine.failure, message, size);
  return error;
}

int64_t launches() { return cuda_on_cpu::machine.launches; }

void run_reference(const float* maps, double* scores, const max_min_pool::Arguments* a) {
  max_min_pool::reference(maps, scores, *a);
}

// Returns 1 and the sentence if there is a problem.
int find_problem(const max_min_pool::Arguments* a, char* message, size_t size) {
  return tell(max_min_pool::problem(*a), message, size);
}
}
