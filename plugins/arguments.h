// The arguments of max-min pooling, and their checks. Plain C++: no CUDA, no framework.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace max_min_pool {

constexpr int kMaxCells = 4096;   // per map
constexpr int kMaxWindows = 256;  // they are kernel parameters of 8 bytes each

struct Window {
  int y, x, h, w;  // in cells of the map
};

// maps [n, c, h, w] -> scores [n, max(window_count, 1), c]; without windows, the whole map is pooled.
struct Arguments {
  int64_t n, c, h, w;
  int64_t k_max, k_min;
  float alpha;
  const Window* windows;
  int window_count;
};

namespace detail {

inline std::string str(int64_t value) { return std::to_string(value); }

inline std::string maps_name(const Arguments& a) {
  return "maps [" + str(a.n) + ", " + str(a.c) + ", " + str(a.h) + ", " + str(a.w) + "]";
}

inline std::string window_name(const Arguments& a, int i) {
  const Window& win = a.windows[i];
  const std::string extent = "y " + str(win.y) + ", x " + str(win.x) + ", h " + str(win.h) + ", w " + str(win.w);
  return "window " + str(i) + " (" + extent + ")";
}

inline std::string k_name(const Arguments& a) {
  return a.k_max > a.k_min ? "k_max is " + str(a.k_max) : "k_min is " + str(a.k_min);
}

}  // namespace detail

// What is wrong with alpha, k_max, k_min and the windows, regardless of the maps: one sentence with the numbers, or an
// empty string if nothing is.
inline std::string attribute_problem(const Arguments& a) {
  using namespace detail;
  if (!std::isfinite(a.alpha)) return "alpha is " + std::to_string(a.alpha) + "; it must be finite";
  if (a.k_max < 1 || a.k_min < 1) {
    return "k_max is " + str(a.k_max) + " and k_min is " + str(a.k_min) + "; both must be at least 1";
  }
  if (a.window_count < 0 || a.window_count > kMaxWindows) {
    return str(a.window_count) + " windows were given; 0 to " + str(kMaxWindows) + " are possible";
  }
  if (a.window_count > 0 && a.windows == nullptr) return str(a.window_count) + " windows were announced, none given";
  const int64_t k = a.k_max > a.k_min ? a.k_max : a.k_min;
  for (int i = 0; i < a.window_count; ++i) {
    const Window& win = a.windows[i];
    if (win.h < 1 || win.w < 1) return window_name(a, i) + " is empty";
    if (win.y < 0 || win.x < 0) return window_name(a, i) + " starts outside the map";
    if (k > static_cast<int64_t>(win.h) * win.w) {
      const std::string area = str(static_cast<int64_t>(win.h) * win.w);
      return k_name(a) + ", but " + window_name(a, i) + " has only " + area + " cells";
    }
  }
  return "";
}

// What is wrong with maps and attributes together: one sentence with the numbers, or an empty string if nothing is.
inline std::string problem(const Arguments& a) {
  using namespace detail;
  if (a.n < 1 || a.c < 1 || a.h < 1 || a.w < 1) return maps_name(a) + " have a dimension below 1";
  if (a.h > kMaxCells || a.w > kMaxCells || a.h * a.w > kMaxCells) {
    return maps_name(a) + " have more than " + str(kMaxCells) + " cells each";
  }
  if (a.n > std::numeric_limits<int64_t>::max() / a.c / (4 * kMaxCells)) {
    return maps_name(a) + " have more cells than 64-bit sizes can count";
  }
  const std::string attributes = attribute_problem(a);
  if (!attributes.empty()) return attributes;
  if (a.window_count == 0 && (a.k_max > a.h * a.w || a.k_min > a.h * a.w)) {
    return k_name(a) + ", but a map of " + str(a.h) + " x " + str(a.w) + " has only " + str(a.h * a.w) + " cells";
  }
  for (int i = 0; i < a.window_count; ++i) {
    const Window& win = a.windows[i];
    if (win.h > a.h - win.y || win.w > a.w - win.x) {
      return window_name(a, i) + " is not inside the map of " + str(a.h) + " x " + str(a.w) + " cells";
    }
  }
  return "";
}

}  // namespace max_min_pool
