// Max-min pooling as a TensorRT plugin, MaxMinPool version 1: IPluginV3 and its creator, for TensorRT 10.3 to 11.
//
// One build works with all these versions, whichever version's headers it was compiled with, because it only uses
// interfaces that did not change. It does not link libnvinfer, so it works with the TensorRT of the process that loads
// it. Invalid arguments are refused when a plugin is created or gets its shapes, with a sentence to TensorRT's logger.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "launch.h"

namespace max_min_pool {
namespace {

using namespace nvinfer1;

constexpr char kName[] = "MaxMinPool", kVersion[] = "1", kNamespace[] = "";
enum FieldIndex { kKMax, kKMin, kAlpha, kWindows, kFieldCount };
constexpr int kNumbersOfWindow = 4;
static_assert(sizeof(Window) == kNumbersOfWindow * sizeof(int32_t), "windows are read from an array of int32");

// The fields that the creator accepts, without data. A parser fills in the attributes of a node.
const PluginField* field_names() {
  static const PluginField names[kFieldCount] = {{"k_max", nullptr, PluginFieldType::kINT32, 1},
                                                 {"k_min", nullptr, PluginFieldType::kINT32, 1},
                                                 {"alpha", nullptr, PluginFieldType::kFLOAT32, 1},
                                                 {"windows", nullptr, PluginFieldType::kINT32, 0}};
  return names;
}

std::atomic<ILoggerFinder*> logger_finder{nullptr};

// Logs with the caller's logger; if TensorRT provides none, errors go to standard error.
void say(ILogger::Severity severity, const std::string& sentence) {
  const std::string line = std::string(kName) + ": " + sentence;
  ILoggerFinder* finder = logger_finder;
  if (ILogger* logger = finder ? finder->findLogger() : nullptr) {
    logger->log(severity, line.c_str());
  } else if (severity <= ILogger::Severity::kERROR) {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

// Calls a function that returns what is wrong (one sentence, or an empty string if nothing is), logs it, and returns
// TensorRT's status. Exceptions are caught, because TensorRT's methods must not throw.
template <typename Check>
int32_t status_of(Check check) noexcept {
  try {
    const std::string wrong = check();
    if (wrong.empty()) return 0;
    say(ILogger::Severity::kERROR, wrong);
  } catch (...) {  // no memory, not even for a sentence
    std::fprintf(stderr, "%s: out of memory\n", kName);
  }
  return 1;
}

const char* type_name(PluginFieldType type) {
  constexpr const char* names[] = {"float16", "float32", "float64", "int8", "int16",   "int32",
                                   "char",    "dims",    "unknown", "bf16", "int64"};
  const auto index = static_cast<size_t>(type);
  return index < std::size(names) ? names[index] : "unknown";
}

const char* type_name(DataType type) {
  constexpr const char* names[] = {"float32", "float16", "int8", "int32", "bool", "uint8", "fp8", "bf16", "int64"};
  const auto index = static_cast<size_t>(type);
  return index < std::size(names) ? names[index] : "of an unknown type";
}

struct Attributes {
  int32_t k_max = 0, k_min = 0;
  float alpha = 0;
  std::vector<Window> windows;

  Arguments with_maps(int64_t n, int64_t c, int64_t h, int64_t w) const {
    return {n, c, h, w, k_max, k_min, alpha, windows.data(), static_cast<int>(windows.size())};
  }
};

// Reads the fields that a creator gets. Returns what is wrong with them, or an empty string.
std::string read(const PluginFieldCollection* collection, Attributes& to) {
  const int32_t count = collection ? collection->nbFields : 0;
  if (count < 0 || (count > 0 && collection->fields == nullptr)) return "the attributes are not readable";
  const PluginField* given[kFieldCount] = {};
  const PluginField* known = field_names();
  for (int32_t i = 0; i < count; ++i) {
    const PluginField& field = collection->fields[i];
    const std::string name = field.name ? field.name : "";
    const auto index = std::find_if(known, known + kFieldCount, [&](auto& each) { return name == each.name; }) - known;
    if (index == kFieldCount) return "there is no attribute \"" + name + "\"; there are k_max, k_min, alpha and windows";
    if (given[index]) return name + " is given twice";
    if (field.type != known[index].type) {
      return name + " is " + type_name(field.type) + "; it must be " + type_name(known[index].type);
    }
    if (field.length < 0 || (field.length > 0 && field.data == nullptr)) return name + " has no data";
    given[index] = &field;
  }
  for (const auto index : {kKMax, kKMin, kAlpha}) {
    if (!given[index]) return std::string(known[index].name) + " is missing";
    if (given[index]->length != 1) {
      return std::string(known[index].name) + " has " + std::to_string(given[index]->length) + " values; it must have 1";
    }
  }
  // memcpy, because the numbers in an engine file may be unaligned.
  std::memcpy(&to.k_max, given[kKMax]->data, sizeof(to.k_max));
  std::memcpy(&to.k_min, given[kKMin]->data, sizeof(to.k_min));
  std::memcpy(&to.alpha, given[kAlpha]->data, sizeof(to.alpha));
  if (const PluginField* windows = given[kWindows]; windows && windows->length > 0) {
    if (windows->length % kNumbersOfWindow != 0) {
      return "windows has " + std::to_string(windows->length) + " numbers; each window has 4 (y, x, h, w)";
    }
    to.windows.resize(windows->length / kNumbersOfWindow);
    std::memcpy(to.windows.data(), windows->data, windows->length * sizeof(int32_t));
  }
  return attribute_problem(to.with_maps(1, 1, 1, 1));
}

std::string input_problem(int32_t count) { return std::to_string(count) + " inputs were given instead of 1, the maps"; }

// What is wrong with maps of these dimensions.
std::string shape_problem(const Attributes& attributes, const Dims& maps) {
  if (maps.nbDims != 4) return "maps have " + std::to_string(maps.nbDims) + " dimensions; they must have 4: N, C, H, W";
  return problem(attributes.with_maps(maps.d[0], maps.d[1], maps.d[2], maps.d[3]));
}

// One input, maps [N, C, H, W], float32 or float16; one output, scores [N, max(windows, 1), C], float32; both linear.
class Plugin final : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
 public:
  explicit Plugin(Attributes attributes) : attributes_(std::move(attributes)) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  IPluginV3* clone() noexcept override {
    Plugin* copy = nullptr;
    status_of([&] {
      copy = new Plugin(attributes_);
      return std::string();
    });
    return copy;
  }

  AsciiChar const* getPluginName() const noexcept override { return kName; }
  AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
  AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* outputs, int32_t, const DataType* inputs,
                             int32_t input_count) const noexcept override {
    return status_of([&]() -> std::string {
      if (input_count != 1) return input_problem(input_count);
      outputs[0] = DataType::kFLOAT;
      if (inputs[0] == DataType::kFLOAT || inputs[0] == DataType::kHALF) return "";
      return std::string("maps are ") + type_name(inputs[0]) + "; they must be float32 or float16";
    });
  }

  int32_t getOutputShapes(DimsExprs const* inputs, int32_t input_count, DimsExprs const*, int32_t, DimsExprs* outputs,
                          int32_t, IExprBuilder& expressions) noexcept override {
    return status_of([&]() -> std::string {
      if (input_count != 1) return input_problem(input_count);
      Dims maps;
      maps.nbDims = inputs[0].nbDims;
      bool map_is_known = true;  // h and w are known; the batch may be dynamic
      for (int32_t i = 0; i < maps.nbDims; ++i) {
        const bool known = inputs[0].d[i]->isConstant();
        maps.d[i] = known ? inputs[0].d[i]->getConstantValue() : 1;
        map_is_known = map_is_known && (known || i < 2);
      }
      if (maps.nbDims != 4 || map_is_known) {
        const std::string wrong = shape_problem(attributes_, maps);
        if (!wrong.empty()) return wrong;
      }
      outputs[0].nbDims = 3;
      outputs[0].d[0] = inputs[0].d[0];
      outputs[0].d[1] = expressions.constant(std::max<int64_t>(attributes_.windows.size(), 1));
      outputs[0].d[2] = inputs[0].d[1];
      return "";
    });
  }

  bool supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* tensors, int32_t,
                                 int32_t) noexcept override {
    const PluginTensorDesc& tensor = tensors[position].desc;
    if (tensor.format != TensorFormat::kLINEAR) return false;
    return tensor.type == DataType::kFLOAT || (position == 0 && tensor.type == DataType::kHALF);
  }

  int32_t configurePlugin(DynamicPluginTensorDesc const* inputs, int32_t, DynamicPluginTensorDesc const*,
                          int32_t) noexcept override {
    return status_of([&] {
      const std::string wrong = shape_problem(attributes_, inputs[0].min);
      return wrong.empty() ? shape_problem(attributes_, inputs[0].max) : wrong;
    });
  }

  int32_t onShapeChange(PluginTensorDesc const* inputs, int32_t, PluginTensorDesc const*, int32_t) noexcept override {
    return status_of([&] { return shape_problem(attributes_, inputs[0].dims); });
  }

  int32_t enqueue(PluginTensorDesc const* inputs, PluginTensorDesc const*, void const* const* maps,
                  void* const* scores, void*, cudaStream_t stream) noexcept override {
    return status_of([&]() -> std::string {
      const Dims& dims = inputs[0].dims;
      const Arguments arguments = attributes_.with_maps(dims.d[0], dims.d[1], dims.d[2], dims.d[3]);
      float* to = static_cast<float*>(scores[0]);
      const cudaError_t error = inputs[0].type == DataType::kHALF
                                    ? launch(static_cast<const __half*>(maps[0]), to, arguments, stream)
                                    : launch(static_cast<const float*>(maps[0]), to, arguments, stream);
      return error == cudaSuccess ? "" : std::string("the kernel did not start: ") + cudaGetErrorString(error);
    });
  }

  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

  PluginFieldCollection const* getFieldsToSerialize() noexcept override {
    std::copy_n(field_names(), static_cast<int>(kFieldCount), fields_);
    fields_[kKMax].data = &attributes_.k_max;
    fields_[kKMin].data = &attributes_.k_min;
    fields_[kAlpha].data = &attributes_.alpha;
    fields_[kWindows].data = attributes_.windows.data();
    fields_[kWindows].length = static_cast<int32_t>(attributes_.windows.size()) * kNumbersOfWindow;
    // A field must have data, so the last one is left out if there are no windows.
    serialized_ = {attributes_.windows.empty() ? kFieldCount - 1 : kFieldCount, fields_};
    return &serialized_;
  }

 private:
  Attributes attributes_;
  PluginField fields_[kFieldCount];
  PluginFieldCollection serialized_;
};

class Creator final : public IPluginCreatorV3One {
 public:
  IPluginV3* createPlugin(AsciiChar const* name, PluginFieldCollection const* fields,
                          TensorRTPhase) noexcept override {
    Plugin* plugin = nullptr;
    status_of([&]() -> std::string {
      Attributes attributes;
      const std::string wrong = read(fields, attributes);
      if (!wrong.empty()) return std::string("node \"") + (name ? name : "") + "\": " + wrong;
      say(ILogger::Severity::kVERBOSE, "k_max " + std::to_string(attributes.k_max) + ", k_min " +
                                           std::to_string(attributes.k_min) + ", alpha " +
                                           std::to_string(attributes.alpha) + ", " +
                                           std::to_string(attributes.windows.size()) + " windows");
      plugin = new Plugin(std::move(attributes));
      return "";
    });
    return plugin;
  }

  PluginFieldCollection const* getFieldNames() noexcept override {
    static const PluginFieldCollection names{kFieldCount, field_names()};
    return &names;
  }

  AsciiChar const* getPluginName() const noexcept override { return kName; }
  AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
  AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }
};

}  // namespace
}  // namespace max_min_pool

// The functions that TensorRT looks up in a plugin library.
#define EXPORTED extern "C" __attribute__((visibility("default")))

// The major version of CUDA, which cxr-trt compares with the driver's before it loads the library.
extern "C" __attribute__((visibility("default"))) const int32_t cxr_trt_plugin_cuda_major = CUDART_VERSION / 1000;

EXPORTED void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { max_min_pool::logger_finder = finder; }

EXPORTED nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static max_min_pool::Creator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}
