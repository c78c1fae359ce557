// Loads the plugin library as TensorRT's registry does, and uses creator and plugin through TensorRT's C++ interface.
//
// plugin_driver PLUGIN [FIELD ...] [ACTION ...]
//   FIELD   NAME=TYPE:NUMBER,...   an attribute, such as k_max=int32:1
//   ACTION  shapes:N,C,H,W  types:TYPE  formats  configure:N,C,H,W:N,C,H,W  change:N,C,H,W  enqueue:N,C,H,W
//           clone  attach  serialize  capabilities        -1: a dimension that is not known yet
//
// Prints a line for each; `log SEVERITY MESSAGE` is what the plugin told its logger. Dimension expressions, which only
// TensorRT's builder has, are the driver's own. As a shared library, it lets other programs see what the plugin logs.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace nvinfer1;

struct Logger : ILogger {
  void log(Severity severity, const char* message) noexcept override {
    std::printf("log %d %s\n", static_cast<int>(severity), message);
    std::fflush(stdout);
  }
} logger;

struct Finder : ILoggerFinder {
  ILogger* findLogger() override { return &logger; }
} finder;

struct Expression final : IDimensionExpr, apiv::VDimensionExpr {
  int64_t value;
  explicit Expression(int64_t value) : value(value) { mImpl = this; }
  bool isConstant() const override { return value >= 0; }
  int64_t getConstantValue() const override { return value; }
  bool isSizeTensor() const override { return false; }
};

struct Expressions final : IExprBuilder, apiv::VExprBuilder {
  std::deque<Expression> made;
  Expressions() { mImpl = this; }
  const IDimensionExpr* constant(int64_t value) override { return &made.emplace_back(value); }
  const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&, const IDimensionExpr&) override {
    return nullptr;
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&, const IDimensionExpr&) override {
    return nullptr;
  }
};

struct FieldType {
  const char* name;
  PluginFieldType type;
  size_t size;
};
constexpr FieldType kFieldTypes[] = {
    {"int32", PluginFieldType::kINT32, 4},     {"int64", PluginFieldType::kINT64, 8},
    {"float32", PluginFieldType::kFLOAT32, 4}, {"float64", PluginFieldType::kFLOAT64, 8},
    {"none", PluginFieldType::kUNKNOWN, 0},
};

const FieldType& field_type(PluginFieldType type) {
  for (const FieldType& each : kFieldTypes) {
    if (each.type == type) return each;
  }
  return kFieldTypes[4];
}

struct Field {
  std::string name;
  std::vector<char> bytes;  // the numbers start at bytes[1], an address that suits no type
  PluginField field;
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

template <typename Number>
void append(std::vector<char>& bytes, Number number) {
  const char* start = reinterpret_cast<const char*>(&number);
  bytes.insert(bytes.end(), start, start + sizeof(number));
}

void add_field(std::deque<Field>& fields, const std::string& text) {
  const size_t equals = text.find('='), colon = text.find(':');
  Field& made = fields.emplace_back();
  made.name = text.substr(0, equals);
  const std::string type = text.substr(equals + 1, colon - equals - 1);
  made.bytes.push_back(0);
  int32_t count = 0;
  for (const std::string& number : split(text.substr(colon + 1), ',')) {
    ++count;
    if (type == "int32") append(made.bytes, static_cast<int32_t>(std::stoll(number)));
    if (type == "int64") append(made.bytes, static_cast<int64_t>(std::stoll(number)));
    if (type == "float32") append(made.bytes, std::stof(number));
    if (type == "float64") append(made.bytes, std::stod(number));
  }
  for (const FieldType& each : kFieldTypes) {
    if (type == each.name) made.field = {made.name.c_str(), made.bytes.data() + 1, each.type, count};
  }
  if (type == "none") made.field.data = nullptr;
}

Dims dims(const std::string& text) {
  Dims made = {};
  for (const std::string& number : split(text, ',')) made.d[made.nbDims++] = std::stoll(number);
  return made;
}

DataType data_type(const std::string& name) {
  return name == "float32" ? DataType::kFLOAT : name == "float16" ? DataType::kHALF : DataType::kINT32;
}

IPluginV3* create(IPluginCreatorV3One* creator, const std::deque<Field>& fields, TensorRTPhase phase) {
  std::vector<PluginField> list;
  for (const Field& each : fields) list.push_back(each.field);
  const PluginFieldCollection collection{static_cast<int32_t>(list.size()), list.data()};
  return creator->createPlugin("pool", &collection, phase);
}

// Prints the fields that go into an engine's file, and returns what the creator makes of a copy of them.
IPluginV3* through_a_file(IPluginV3OneRuntime* runtime, IPluginCreatorV3One* creator) {
  const PluginFieldCollection* saved = runtime->getFieldsToSerialize();
  std::deque<Field> copies;
  std::printf("fields");
  for (int32_t i = 0; i < saved->nbFields; ++i) {
    const PluginField& field = saved->fields[i];
    const FieldType& type = field_type(field.type);
    Field& copy = copies.emplace_back();
    copy.name = field.name;
    copy.bytes.resize(1 + field.length * type.size);
    std::memcpy(copy.bytes.data() + 1, field.data, field.length * type.size);
    copy.field = {copy.name.c_str(), copy.bytes.data() + 1, field.type, field.length};
    std::printf(" %s=%s:", field.name, type.name);
    for (int32_t j = 0; j < field.length; ++j) {
      if (field.type == PluginFieldType::kFLOAT32) std::printf("%.9g,", static_cast<const float*>(field.data)[j]);
      if (field.type == PluginFieldType::kINT32) std::printf("%d,", static_cast<const int32_t*>(field.data)[j]);
    }
  }
  std::printf("\n");
  return create(creator, copies, TensorRTPhase::kRUNTIME);
}

void print_formats(IPluginV3OneBuild* build) {
  std::printf("formats");
  for (int maps = 0; maps < EnumMax<DataType>(); ++maps) {
    for (int scores = 0; scores < EnumMax<DataType>(); ++scores) {
      for (int format = 0; format < 2 * EnumMax<TensorFormat>(); ++format) {
        // One of the two tensors is linear, the other has each of the formats in turn.
        const auto other = static_cast<TensorFormat>(format / 2);
        DynamicPluginTensorDesc tensors[2] = {};
        tensors[0].desc.type = static_cast<DataType>(maps), tensors[1].desc.type = static_cast<DataType>(scores);
        tensors[0].desc.format = format % 2 ? other : TensorFormat::kLINEAR;
        tensors[1].desc.format = format % 2 ? TensorFormat::kLINEAR : other;
        if (format == 1) continue;  // both linear has been asked for
        if (build->supportsFormatCombination(0, tensors, 1, 1) && build->supportsFormatCombination(1, tensors, 1, 1)) {
          std::printf(" %d>%d:%d", maps, scores, format / 2);
        }
      }
    }
  }
  std::printf("\n");
}

void act(const std::string& action, IPluginV3*& plugin, IPluginCreatorV3One* creator) {
  const auto capability = [&](PluginCapabilityType type) { return plugin->getCapabilityInterface(type); };
  auto* core = static_cast<IPluginV3OneCore*>(capability(PluginCapabilityType::kCORE));
  auto* build = static_cast<IPluginV3OneBuild*>(capability(PluginCapabilityType::kBUILD));
  auto* runtime = static_cast<IPluginV3OneRuntime*>(capability(PluginCapabilityType::kRUNTIME));
  const std::vector<std::string> parts = split(action, ':');
  const std::string verb = parts[0], argument = parts.size() > 1 ? parts[1] : "";
  if (verb == "capabilities") {
    std::printf("core %s %s \"%s\" %s; build %s, %d output; runtime %s\n", core->getPluginName(),
                core->getPluginVersion(), core->getPluginNamespace(), core->getInterfaceInfo().kind,
                build->getInterfaceInfo().kind, build->getNbOutputs(), runtime->getInterfaceInfo().kind);
  } else if (verb == "types") {
    DataType maps = data_type(argument), scores = DataType::kINT8;
    const int32_t status = build->getOutputDataTypes(&scores, 1, &maps, argument.empty() ? 0 : 1);
    std::printf(status ? "types refused\n" : "types taken %d\n", static_cast<int>(scores));
  } else if (verb == "shapes") {
    const Dims maps = dims(argument);
    std::deque<Expression> known;
    DimsExprs inputs = {}, outputs = {};
    inputs.nbDims = maps.nbDims;
    for (int i = 0; i < maps.nbDims; ++i) inputs.d[i] = &known.emplace_back(maps.d[i]);
    Expressions expressions;
    const int32_t status = build->getOutputShapes(&inputs, maps.nbDims ? 1 : 0, nullptr, 0, &outputs, 1, expressions);
    std::printf("shapes %s", status ? "refused" : "taken");
    for (int i = 0; i < outputs.nbDims; ++i) {
      std::printf(" %lld", static_cast<long long>(static_cast<const Expression*>(outputs.d[i])->value));
    }
    std::printf("\n");
  } else if (verb == "configure") {
    DynamicPluginTensorDesc inputs = {}, outputs = {};
    inputs.min = dims(parts[1]), inputs.max = dims(parts[2]);
    std::printf("configure %s\n", build->configurePlugin(&inputs, 1, &outputs, 1) ? "refused" : "taken");
  } else if (verb == "change") {
    PluginTensorDesc inputs = {}, outputs = {};
    inputs.dims = dims(argument);
    std::printf("change %s\n", runtime->onShapeChange(&inputs, 1, &outputs, 1) ? "refused" : "taken");
  } else if (verb == "enqueue") {
    PluginTensorDesc inputs = {}, outputs = {};
    inputs.dims = dims(argument);
    alignas(16) static char somewhere[16];
    const void* maps = somewhere;
    void* scores = somewhere;
    const int32_t status = runtime->enqueue(&inputs, &outputs, &maps, &scores, nullptr, nullptr);
    std::printf("enqueue %s\n", status ? "refused" : "taken");
  } else if (verb == "formats") {
    print_formats(build);
  } else if (verb == "clone" || verb == "attach" || verb == "serialize") {
    IPluginV3* copy = verb == "clone"    ? plugin->clone()
                      : verb == "attach" ? runtime->attachToContext(nullptr)
                                         : through_a_file(runtime, creator);
    std::printf("%s %s\n", verb.c_str(), copy && copy != plugin ? "another" : "none");
    delete plugin;
    plugin = copy;
  } else {
    std::printf("unknown action %s\n", action.c_str());
    std::exit(1);
  }
}

template <typename Function>
Function symbol(void* library, const char* name) {
  void* found = library ? dlsym(library, name) : nullptr;
  if (!found) {
    std::printf("%s: %s\n", name, dlerror());
    std::exit(1);
  }
  return reinterpret_cast<Function>(found);
}

}  // namespace

extern "C" void print_log(const char* plugin) {
  symbol<void (*)(ILoggerFinder*)>(dlopen(plugin, RTLD_NOW | RTLD_LOCAL), "setLoggerFinder")(&finder);
}

int main(int count, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (!std::getenv("NO_LOGGER")) print_log(arguments[1]);
  int32_t creator_count = 0;
  auto* listed = symbol<IPluginCreatorInterface* const* (*)(int32_t&)>(library, "getCreators")(creator_count)[0];
  const InterfaceInfo interface = listed->getInterfaceInfo();
  auto* creator = static_cast<IPluginCreatorV3One*>(listed);
  std::printf("%d creator, %s %d.%d:", creator_count, interface.kind, interface.major, interface.minor);
  for (int32_t i = 0; i < creator->getFieldNames()->nbFields; ++i) {
    const PluginField& field = creator->getFieldNames()->fields[i];
    std::printf(" %s=%s", field.name, field_type(field.type).name);
  }
  std::printf("\n");

  std::deque<Field> fields;
  int at = 2;
  for (; at < count && std::strchr(arguments[at], '='); ++at) add_field(fields, arguments[at]);
  IPluginV3* plugin = create(creator, fields, TensorRTPhase::kBUILD);
  std::printf("plugin %s\n", plugin ? plugin->getInterfaceInfo().kind : "none");
  for (; plugin && at < count; ++at) act(arguments[at], plugin, creator);
  delete plugin;
  return 0;
}
