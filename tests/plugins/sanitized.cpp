// Runs cases from a file, for builds with a sanitizer: sanitized CASES SCORES. Maps and scores have their exact sizes.
//
// A case: 12 int64 (half, seed, cells before the maps, largest grid, n, c, h, w, k_max, k_min, bits of alpha, windows),
// the windows, the maps. The scores of all cases follow each other.
#include <cstdio>
#include <cstdlib>

#include "max_min_pool.cuh"

namespace {

template <typename T>
bool run(const int64_t* head, FILE* in, FILE* out) {
  max_min_pool::Arguments a = {};
  a.n = head[4], a.c = head[5], a.h = head[6], a.w = head[7], a.k_max = head[8], a.k_min = head[9];
  a.alpha = cuda_on_cpu::bits<float>(static_cast<uint32_t>(head[10]));
  a.window_count = static_cast<int>(head[11]);
  std::vector<max_min_pool::Window> windows(a.window_count);
  if (fread(windows.data(), sizeof(windows[0]), windows.size(), in) != windows.size()) return false;
  a.windows = windows.data();
  const size_t cells = a.n * a.c * a.h * a.w, scores = a.n * a.c * std::max(a.window_count, 1);
  T* maps = static_cast<T*>(std::malloc((head[2] + cells) * sizeof(T)));
  float* to = static_cast<float*>(std::malloc(scores * sizeof(float)));
  std::memset(to, 0xff, scores * sizeof(float));
  bool fine = fread(maps + head[2], sizeof(T), cells, in) == cells;
  cuda_on_cpu::machine.seed = static_cast<unsigned>(head[1]);
  fine = fine && max_min_pool::launch(maps + head[2], to, a, nullptr, static_cast<int>(head[3])) == cudaSuccess;
  if (!fine) std::fprintf(stderr, "launch failed: %s\n", cuda_on_cpu::machine.failure.c_str());
  fine = fine && fwrite(to, sizeof(float), scores, out) == scores;
  std::free(maps);
  std::free(to);
  return fine;
}

}  // namespace

int main(int, char** argv) {
  FILE* in = fopen(argv[1], "rb");
  FILE* out = fopen(argv[2], "wb");
  int64_t head[12];
  bool fine = in && out;
  while (fine && fread(head, sizeof(head), 1, in) == 1) fine = head[0] ? run<__half>(head, in, out) : run<float>(head, in, out);
  if (in) fclose(in);
  if (out) fclose(out);
  return fine ? 0 : 1;
}
