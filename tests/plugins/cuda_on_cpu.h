// Runs CUDA kernels on the CPU, for tests: g++ compiles a kernel's header against this one in place of nvcc's.
//
// Every CUDA thread is a fiber that runs until a barrier or a warp collective. Such a point is passed only when every
// thread that it names has arrived there; a launch in which that can never happen fails, and says where. Blocks, warps
// and lanes run in an order drawn from a seed, each warp as far ahead of the others as it can go. Shared memory has its
// exact size and starts as NaNs. With -fsanitize=thread each fiber is a thread of ThreadSanitizer's, so that a missing
// barrier is a data race.
//
// Not modelled: orders weaker than barriers, address spaces, vector alignment (UndefinedBehaviorSanitizer sees it),
// speed. Types come from the CUDA toolkit's headers, which g++ compiles on its own.
#pragma once

#include <cuda_fp16.h>
#include <driver_types.h>
#include <ucontext.h>
#include <vector_types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define WITH_TSAN(statement) statement
#else
#define WITH_TSAN(statement)
#endif
// The scheduler is not what the sanitizers are to look at.
#define UNWATCHED __attribute__((noinline, no_sanitize("thread"), no_sanitize("address")))

#undef __global__
#undef __device__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

namespace cuda_on_cpu {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 256 << 10;

enum class Point { kNone, kBlock, kWarp, kShuffle };

struct Thread {
  ucontext_t context;
  uint3 index;
  bool done;
  Point point;            // where it waits
  unsigned mask;          // of the lanes it waits for
  int line;               // in the source
  uint64_t given;         // to the other lanes
  uint64_t lanes[kWarp];  // what they gave
  void* tsan;
  unsigned passed[2];  // warp and block barriers
};

struct Machine {
  std::vector<Thread> threads;
  ucontext_t scheduler;
  Thread* running;
  dim3 grid, block;
  uint3 at;
  void* shared;
  std::function<void()> kernel;
  void* scheduler_tsan;
  char block_tag[2], warp_tag[kWarp][2], end_tag;
  // Set by the test:
  unsigned seed = 0;
  int64_t only_block = -1;  // runs this block alone, for grids too large to run
  // Told to the test:
  std::string failure;
  int64_t launches = 0;
};
inline Machine machine;

UNWATCHED inline void* shared_memory() { return machine.shared; }
UNWATCHED inline unsigned thread_index() { return machine.running->index.x; }
UNWATCHED inline unsigned block_index() { return machine.at.x; }
UNWATCHED inline unsigned block_size() { return machine.block.x; }
UNWATCHED inline unsigned grid_size() { return machine.grid.x; }

// Reads like CUDA's built-in variables; one-dimensional launches only.
template <unsigned (*Read)()>
struct Variable {
  struct Component {
    operator unsigned() const { return Read(); }
  } x;
};

UNWATCHED inline void to_scheduler() {
  Thread* self = machine.running;
  WITH_TSAN(__tsan_switch_to_fiber(machine.scheduler_tsan, __tsan_switch_to_fiber_no_sync);)
  swapcontext(&self->context, &machine.scheduler);
}

UNWATCHED inline void to_thread(Thread* thread) {
  machine.running = thread;
  WITH_TSAN(__tsan_switch_to_fiber(thread->tsan, __tsan_switch_to_fiber_no_sync);)
  swapcontext(&machine.scheduler, &thread->context);
}

inline void call_kernel() { machine.kernel(); }

UNWATCHED inline void thread_main() {
  call_kernel();
  WITH_TSAN(__tsan_release(&machine.end_tag);)
  machine.running->done = true;
  to_scheduler();
}

UNWATCHED inline void fail(const Thread& thread, const std::string& why) {
  if (!machine.failure.empty()) return;
  machine.failure = "block " + std::to_string(machine.at.x) + ", thread " + std::to_string(thread.index.x) + ", line " +
                    std::to_string(thread.line) + ": " + why;
}

UNWATCHED inline void arrive(Point point, unsigned mask, uint64_t given, int line) {
  Thread* self = machine.running;
  self->point = point;
  self->mask = mask;
  self->given = given;
  self->line = line;
  // A shuffle orders no memory. Threads resume one after the other, when some may have reached the next barrier: two
  // tags in turn.
  WITH_TSAN(const bool barrier = point != Point::kShuffle; char* tag = nullptr; if (barrier) {
    const unsigned turn = self->passed[point == Point::kBlock]++ & 1;
    tag = point == Point::kBlock ? &machine.block_tag[turn] : &machine.warp_tag[self->index.x / kWarp][turn];
    __tsan_release(tag);
  })
  to_scheduler();
  WITH_TSAN(if (barrier) __tsan_acquire(tag);)
}

UNWATCHED inline uint64_t from_lane(int lane) {
  const Thread& self = *machine.running;
  if (!(self.mask >> (lane & (kWarp - 1)) & 1)) fail(self, "a shuffle reads a lane that its mask does not name");
  return self.lanes[lane & (kWarp - 1)];
}

inline bool same_point(const Thread& a, const Thread& b) {
  return !a.done && a.point == b.point && a.mask == b.mask && a.line == b.line;
}

// Lets lanes of a warp pass a point that all lanes it names have reached; false when there is none.
UNWATCHED inline bool release_warp(Thread* warp) {
  for (int i = 0; i < kWarp; ++i) {
    const Point point = warp[i].point;
    const unsigned mask = warp[i].mask;
    if (warp[i].done || point == Point::kNone || point == Point::kBlock) continue;
    if (!(mask >> i & 1)) {
      fail(warp[i], "a lane that its own mask does not name");
      return false;
    }
    bool complete = true;
    for (int j = 0; j < kWarp; ++j) complete = complete && (!(mask >> j & 1) || same_point(warp[i], warp[j]));
    if (!complete) continue;
    for (int j = 0; j < kWarp; ++j) {
      if (!(mask >> j & 1)) continue;
      warp[j].point = Point::kNone;
      for (int k = 0; k < kWarp; ++k) warp[j].lanes[k] = warp[k].given;
    }
    return true;
  }
  return false;
}

UNWATCHED inline void prepare(Thread& thread, unsigned index, char* stack) {
  thread.index = uint3{index, 0, 0};
  thread.done = false;
  thread.point = Point::kNone;
  thread.passed[0] = thread.passed[1] = 0;
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = stack;
  thread.context.uc_stack.ss_size = kStackBytes;
  thread.context.uc_link = nullptr;
  makecontext(&thread.context, thread_main, 0);
  WITH_TSAN(thread.tsan = __tsan_create_fiber(0);)
}

inline void run_block(std::mt19937& random) {
  auto& threads = machine.threads;
  std::vector<Thread*> warps, lanes(kWarp);
  for (size_t i = 0; i < threads.size(); i += kWarp) warps.push_back(&threads[i]);
  for (bool moved = true; moved && machine.failure.empty();) {
    moved = false;
    std::shuffle(warps.begin(), warps.end(), random);
    for (Thread* warp : warps) {
      do {
        for (int i = 0; i < kWarp; ++i) lanes[i] = warp + i;
        std::shuffle(lanes.begin(), lanes.end(), random);
        for (Thread* thread : lanes) {
          if (thread->done || thread->point != Point::kNone) continue;
          moved = true;
          to_thread(thread);
        }
      } while (machine.failure.empty() && release_warp(warp));
    }
    const auto at_barrier = [&](const Thread& t) { return t.point == Point::kBlock && same_point(t, threads[0]); };
    if (std::all_of(threads.begin(), threads.end(), at_barrier)) {
      for (Thread& thread : threads) thread.point = Point::kNone;
    }
  }
  for (const Thread& thread : threads) {
    if (!thread.done) fail(thread, "waits for threads that have ended or wait elsewhere");
  }
}

inline cudaError_t launch(const cudaLaunchConfig_t& config, std::function<void()> kernel) {
  ++machine.launches;
  machine.failure.clear();
  machine.grid = config.gridDim;
  machine.block = config.blockDim;
  machine.kernel = std::move(kernel);
  const dim3 grid = config.gridDim, block = config.blockDim;
  if (grid.x < 1 || grid.y * grid.z != 1 || block.x < 1 || block.x > 1024 || block.x % kWarp ||
      block.y * block.z != 1 || config.dynamicSmemBytes > 48 << 10) {
    machine.failure = "a launch of " + std::to_string(grid.x) + " blocks of " + std::to_string(block.x) +
                      " threads and " + std::to_string(config.dynamicSmemBytes) + " bytes is not possible";
    return cudaErrorInvalidConfiguration;
  }
  std::mt19937 random(machine.seed);
  std::vector<unsigned> order;
  if (machine.only_block >= 0) {
    order = {static_cast<unsigned>(machine.only_block)};
  } else {
    order.resize(grid.x);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
  }
  machine.threads = std::vector<Thread>(block.x);
  WITH_TSAN(machine.scheduler_tsan = __tsan_get_current_fiber();)
  std::vector<std::unique_ptr<unsigned char[]>> memory;  // kept to the end, as the stacks: blocks share none
  std::vector<std::unique_ptr<char[]>> stacks;
  for (unsigned index : order) {
    memory.emplace_back(new unsigned char[config.dynamicSmemBytes]);
    std::memset(memory.back().get(), 0xff, config.dynamicSmemBytes);
    machine.shared = memory.back().get();
    machine.at = uint3{index, 0, 0};
    for (unsigned i = 0; i < block.x; ++i) {
      stacks.emplace_back(new char[kStackBytes]);
      prepare(machine.threads[i], i, stacks.back().get());
    }
    run_block(random);
    WITH_TSAN(for (Thread& thread : machine.threads) __tsan_destroy_fiber(thread.tsan);)
    if (!machine.failure.empty()) break;
  }
  WITH_TSAN(__tsan_acquire(&machine.end_tag);)
  return machine.failure.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

template <class To, class From>
To bits(From from) {
  To to{};
  std::memcpy(&to, &from, std::min(sizeof to, sizeof from));
  return to;
}

inline cudaError_t last_error = cudaSuccess;

}  // namespace cuda_on_cpu

inline cuda_on_cpu::Variable<cuda_on_cpu::thread_index> threadIdx;
inline cuda_on_cpu::Variable<cuda_on_cpu::block_index> blockIdx;
inline cuda_on_cpu::Variable<cuda_on_cpu::block_size> blockDim;
inline cuda_on_cpu::Variable<cuda_on_cpu::grid_size> gridDim;

using std::max;
using std::min;

inline void __syncthreads(int line = __builtin_LINE()) {
  cuda_on_cpu::arrive(cuda_on_cpu::Point::kBlock, 0, 0, line);
}

inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) {
  cuda_on_cpu::arrive(cuda_on_cpu::Point::kWarp, mask, 0, line);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int line = __builtin_LINE()) {
  cuda_on_cpu::arrive(cuda_on_cpu::Point::kShuffle, mask, cuda_on_cpu::bits<uint64_t>(value), line);
  return cuda_on_cpu::bits<T>(cuda_on_cpu::from_lane(lane));
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int line = __builtin_LINE()) {
  return __shfl_sync(mask, value, static_cast<int>(threadIdx.x % cuda_on_cpu::kWarp) ^ distance, line);
}

inline float __uint_as_float(unsigned u) { return cuda_on_cpu::bits<float>(u); }
inline unsigned __float_as_uint(float f) { return cuda_on_cpu::bits<unsigned>(f); }
inline float __fdiv_rn(float a, float b) { return a / b; }

template <class... Parameters, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Given&&... given) {
  return cuda_on_cpu::last_error = cuda_on_cpu::launch(*config, [&] { kernel(static_cast<Parameters>(given)...); });
}

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_on_cpu::last_error;
  cuda_on_cpu::last_error = cudaSuccess;
  return error;
}
