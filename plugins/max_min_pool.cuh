// Max-min pooling on an NVIDIA GPU: maps [n, c, h, w] -> scores [n, max(windows, 1), c] (float32).
//
//   score = mean of the k_max largest cells + alpha * mean of the k_min smallest, for each window of each map
//
// Maps are float32, or float16 that is widened to float32 before anything is computed. A map ("row" below: h * w
// contiguous cells) may start at any address that its type allows. NaN is larger than every number, as in torch.topk.
// When alpha is 0, the smallest cells are ignored, so that 0 times infinity cannot spoil a score.
//
// Compile:  nvcc -std=c++17 -gencode arch=compute_75,code=sm_75 ...     (CUDA 11.8 or newer, compute capability 7.5)
//           not with --use_fast_math, which flushes subnormal numbers and rounds divisions differently
// g++ compiles the same code against an emulation of CUDA threads: tests/plugins/cuda_on_cpu.h
//
// What each choice buys:
//   one warp per row       no block barrier, no atomics, no workspace; a warp that waits for memory delays no other
//   16-byte loads          a row of 14 x 14 float32 takes two loads per lane, of float16 one; a row that is aligned to
//                          8 bytes only is read 8 bytes at a time, any other cell by cell, so that copies or padding
//                          are never needed
//   keys in registers      whole maps: each cell is read from memory once and stays in its lane
//   keys in shared memory  windows: each cell is read from memory once, however many windows cover it
//   floats as integers     an order-preserving map to uint32 sorts NaN and infinities correctly, makes selection a
//                          comparison of integers, and turns "smallest" into "largest" by complement
//   special case k = 1     one maximum per lane and one reduction across the warp
//   any other k            a binary search for the k-th largest key, bit by bit from the top: at most 32 counts for
//                          any k, and it ends early once exactly k keys are left
//   windows by value       they are read from the constant bank, so no device copy has to be owned by anyone
//   loop over the grid     any number of rows, regardless of the largest possible grid
#pragma once

#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>

#include "launch.h"
#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "cuda_on_cpu.h"
#endif

namespace max_min_pool {

constexpr int kLanes = 32;
constexpr int kWarps = 4;  // per block
constexpr int kSharedBytes = 48 << 10;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr uint32_t kAbsent = 0;  // stands for no cell: smaller than the key of every float

struct PackedWindow {
  uint16_t y, x, h, w;
};

struct WindowTable {
  int count;
  PackedWindow window[kMaxWindows];
};

__device__ __forceinline__ float to_float(float cell) { return cell; }
__device__ __forceinline__ float to_float(__half cell) { return __half2float(cell); }

// Order-preserving: larger floats have larger keys, and NaN (of either sign) has the largest. ~key is the key of -cell;
// the complement of NaN's key is smaller than the key of -infinity.
__device__ __forceinline__ uint32_t key_of(float cell) {
  const uint32_t bits = cell == cell ? __float_as_uint(cell) : 0x7fc00000u;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The inverse of key_of.
__device__ __forceinline__ float value_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

// Called by all lanes of a warp; all of them hold the result.
template <typename Number>
__device__ __forceinline__ Number warp_sum(Number value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// Called by all lanes of a warp; all of them hold the result.
__device__ __forceinline__ int warp_count(int value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_add_sync(kAllLanes, value);
#else
  return warp_sum(value);
#endif
}

// Called by all lanes of a warp; all of them hold the result.
__device__ __forceinline__ uint32_t warp_max(uint32_t value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_max_sync(kAllLanes, value);
#else
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value = max(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
#endif
}

// Mean of the k largest keys of a warp that has V keys in each lane; 1 <= k <= number of keys that are not absent.
// Called by all lanes with the same k; all of them hold the result.
template <int V>
__device__ __forceinline__ float mean_of_largest(const uint32_t (&key)[V], int k) {
  if (k == 1) {
    uint32_t largest = key[0];
#pragma unroll
    for (int j = 1; j < V; ++j) largest = max(largest, key[j]);
    return value_of(warp_max(largest));
  }
  uint32_t threshold = 0;  // becomes, bit by bit, the largest number that at least k keys reach
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t candidate = threshold | 1u << bit;
    int reached = 0;
#pragma unroll
    for (int j = 0; j < V; ++j) reached += key[j] >= candidate;
    reached = warp_count(reached);
    if (reached >= k) threshold = candidate;
    if (reached == k) break;
  }
  float sum = 0;
  int above = 0;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const bool is_above = key[j] > threshold;
    sum += is_above ? value_of(key[j]) : 0.0f;  // not a product with 0: the cell may be infinite
    above += is_above;
  }
  sum = warp_sum(sum);
  const int ties = k - warp_count(above);  // how many of the k largest keys are equal to the threshold
  if (ties > 0) sum = fmaf(static_cast<float>(ties), value_of(threshold), sum);
  return __fdiv_rn(sum, static_cast<float>(k));
}

// The score of a warp's keys, which are overwritten. Called by all lanes; all of them hold the result.
template <int V>
__device__ __forceinline__ float score_of(uint32_t (&key)[V], int k_max, int k_min, float alpha) {
  const float high = mean_of_largest(key, k_max);
  if (alpha == 0) return high;
#pragma unroll
  for (int j = 0; j < V; ++j) key[j] = key[j] == kAbsent ? kAbsent : ~key[j];
  return fmaf(alpha, -mean_of_largest(key, k_min), high);
}

template <typename T, int E>
struct alignas(E * sizeof(T)) Pack {
  T cell[E];
};

// Reads cells first to first + E - 1 of a row that is aligned to a pack, with one load if all of them exist. first is a
// multiple of E; cells past the end are not read and become 0.
template <typename T, int E>
__device__ __forceinline__ Pack<T, E> read_pack(const T* row, int first, int cells) {
  if (first + E <= cells) return *reinterpret_cast<const Pack<T, E>*>(row + first);
  Pack<T, E> pack = {};
#pragma unroll
  for (int e = 0; e < E; ++e) {
    if (first + e < cells) pack.cell[e] = row[first + e];
  }
  return pack;
}

// Reads a row into the registers of a warp, E cells per load; all loads are issued before the first result is used.
template <int E, typename T, int V>
__device__ __forceinline__ void read_keys(const T* row, int cells, int lane, uint32_t (&key)[V]) {
  Pack<T, E> pack[V / E];
#pragma unroll
  for (int i = 0; i < V / E; ++i) pack[i] = read_pack<T, E>(row, (i * kLanes + lane) * E, cells);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const int cell = (j / E * kLanes + lane) * E + j % E;
    key[j] = cell < cells ? key_of(to_float(pack[j / E].cell[j % E])) : kAbsent;
  }
}

// Writes a row's keys to stage[0 .. cells - 1], E cells per load. The warp must synchronise before it reads them.
template <int E, typename T>
__device__ __forceinline__ void stage_keys(const T* row, int cells, int lane, uint32_t* stage) {
#pragma unroll 2  // 4 would spill registers on compute capability 7.5
  for (int first = lane * E; first < cells; first += kLanes * E) {
    const Pack<T, E> pack = read_pack<T, E>(row, first, cells);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      if (first + e < cells) stage[first + e] = key_of(to_float(pack.cell[e]));
    }
  }
}

// Reads a window's keys from a staged row, whose map is w cells wide; lane l gets cells l, l + 32, ... of the window.
template <int V>
__device__ __forceinline__ void window_keys(const uint32_t* stage, int w, PackedWindow win, int lane,
                                            uint32_t (&key)[V]) {
  const int down = kLanes / win.w, right = kLanes % win.w;
  int y = lane / win.w, x = lane % win.w;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    key[j] = y < win.h ? stage[(win.y + y) * w + win.x + x] : kAbsent;
    y += down;
    x += right;
    if (x >= win.w) {
      x -= win.w;
      ++y;
    }
  }
}

__device__ __forceinline__ uint32_t* dynamic_shared_memory() {
#ifdef __CUDACC__
  extern __shared__ uint32_t dynamic_shared[];
  return dynamic_shared;
#else
  return static_cast<uint32_t*>(cuda_on_cpu::shared_memory());
#endif
}

// Scores whole maps of at most 32 * V cells. No shared memory.
template <typename T, int V>
__global__ void __launch_bounds__(kLanes* kWarps)
    score_maps(const T* __restrict__ maps, float* __restrict__ scores, int64_t rows, int cells, int k_max, int k_min,
               float alpha) {
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, warps = blockDim.x / kLanes;
  for (int64_t row = int64_t{blockIdx.x} * warps + warp; row < rows; row += int64_t{gridDim.x} * warps) {
    const T* from = maps + row * cells;
    uint32_t key[V];
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      read_keys<16 / sizeof(T)>(from, cells, lane, key);
    } else if (reinterpret_cast<uintptr_t>(from) % 8 == 0) {
      read_keys<8 / sizeof(T)>(from, cells, lane, key);
    } else {
      read_keys<1>(from, cells, lane, key);
    }
    const float score = score_of(key, k_max, k_min, alpha);
    if (lane == 0) scores[row] = score;
  }
}

// Scores windows of at most 32 * V cells. Shared memory: 4 * cells bytes per warp, which only that warp uses.
template <typename T, int V>
__global__ void __launch_bounds__(kLanes* kWarps)
    score_windows(const T* __restrict__ maps, float* __restrict__ scores, int64_t rows, int64_t c, int w, int cells,
                  int k_max, int k_min, float alpha, const __grid_constant__ WindowTable windows) {
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, warps = blockDim.x / kLanes;
  uint32_t* stage = dynamic_shared_memory() + warp * cells;
  for (int64_t row = int64_t{blockIdx.x} * warps + warp; row < rows; row += int64_t{gridDim.x} * warps) {
    const T* from = maps + row * cells;
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      stage_keys<16 / sizeof(T)>(from, cells, lane, stage);
    } else if (reinterpret_cast<uintptr_t>(from) % 8 == 0) {
      stage_keys<8 / sizeof(T)>(from, cells, lane, stage);
    } else {
      stage_keys<1>(from, cells, lane, stage);
    }
    __syncwarp();
    float* to = scores + row / c * windows.count * c + row % c;
    for (int i = 0; i < windows.count; ++i) {
      uint32_t key[V];
      window_keys(stage, w, windows.window[i], lane, key);
      const float score = score_of(key, k_max, k_min, alpha);
      if (lane == 0) to[i * c] = score;
    }
    __syncwarp();  // the next row overwrites the stage
  }
}

template <typename T, int V>
cudaError_t launch_class(const T* maps, float* scores, const Arguments& a, cudaStream_t stream, int max_blocks) {
  const int cells = static_cast<int>(a.h * a.w), w = static_cast<int>(a.w);
  const int k_max = static_cast<int>(a.k_max), k_min = static_cast<int>(a.k_min);
  const int row_bytes = a.window_count > 0 ? cells * static_cast<int>(sizeof(uint32_t)) : 0;
  const int warps = row_bytes > 0 ? std::min(kWarps, kSharedBytes / row_bytes) : kWarps;
  const int64_t rows = a.n * a.c, blocks = (rows + warps - 1) / warps;

  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(std::min<int64_t>(blocks, max_blocks)));
  config.blockDim = dim3(kLanes * warps);
  config.dynamicSmemBytes = static_cast<size_t>(warps) * row_bytes;
  config.stream = stream;
  if (a.window_count == 0) {
    cudaLaunchKernelEx(&config, score_maps<T, V>, maps, scores, rows, cells, k_max, k_min, a.alpha);
  } else {
    WindowTable table = {};
    table.count = a.window_count;
    for (int i = 0; i < a.window_count; ++i) {
      const Window& win = a.windows[i];
      table.window[i] = {static_cast<uint16_t>(win.y), static_cast<uint16_t>(win.x), static_cast<uint16_t>(win.h),
                         static_cast<uint16_t>(win.w)};
    }
    cudaLaunchKernelEx(&config, score_windows<T, V>, maps, scores, rows, a.c, w, cells, k_max, k_min, a.alpha, table);
  }
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch(const T* maps, float* scores, const Arguments& a, cudaStream_t stream, int max_blocks) {
  if (maps == nullptr || scores == nullptr || !problem(a).empty()) return cudaErrorInvalidValue;
  int64_t largest = a.window_count > 0 ? 0 : a.h * a.w;
  for (int i = 0; i < a.window_count; ++i) {
    largest = std::max<int64_t>(largest, int64_t{a.windows[i].h} * a.windows[i].w);
  }
  if (largest <= 8 * kLanes) return launch_class<T, 8>(maps, scores, a, stream, max_blocks);
  if (largest <= 32 * kLanes) return launch_class<T, 32>(maps, scores, a, stream, max_blocks);
  return launch_class<T, 128>(maps, scores, a, stream, max_blocks);
}

}  // namespace max_min_pool
