// Max-min pooling in plain C++: the definition with which the kernel is compared.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "arguments.h"

namespace max_min_pool {

// maps [n, c, h, w] as float32 (a float16 map is widened first); scores [n, max(window_count, 1), c].
inline void reference(const float* maps, double* scores, const Arguments& a) {
  const Window whole{0, 0, static_cast<int>(a.h), static_cast<int>(a.w)};
  const Window* windows = a.window_count > 0 ? a.windows : &whole;
  const int count = std::max(a.window_count, 1);
  // NaN is larger than every number, as in torch.topk.
  const auto larger = [](float left, float right) { return std::isnan(left) ? !std::isnan(right) : left > right; };
  for (int64_t row = 0; row < a.n * a.c; ++row) {
    for (int q = 0; q < count; ++q) {
      const Window& win = windows[q];
      std::vector<float> cells;
      for (int y = win.y; y < win.y + win.h; ++y) {
        const float* line = maps + (row * a.h + y) * a.w;
        cells.insert(cells.end(), line + win.x, line + win.x + win.w);
      }
      std::sort(cells.begin(), cells.end(), larger);
      double high = 0, low = 0;
      for (int64_t i = 0; i < a.k_max; ++i) high += cells[i];
      for (int64_t i = 0; i < a.k_min; ++i) low += cells[cells.size() - 1 - i];
      double score = high / a.k_max;
      if (a.alpha != 0) score += a.alpha * (low / a.k_min);
      scores[(row / a.c * count + q) * a.c + row % a.c] = score;
    }
  }
}

}  // namespace max_min_pool
