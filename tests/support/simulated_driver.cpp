// The driver's functions for CUDA graphs, as a library that only keeps account: each call is checked against what came
// before, and `calls` says what was called. Stream 0x1234567890 is known; capturing it fails where FAIL names a function.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int SUCCESS = 0, INVALID_VALUE = 1, INVALID_HANDLE = 400, INVALIDATED = 901;
void* const STREAM = reinterpret_cast<void*>(uintptr_t{0x1234567890});
void* const GRAPH = reinterpret_cast<void*>(uintptr_t{0x7f0000000010});
void* const EXECUTABLE = reinterpret_cast<void*>(uintptr_t{0x7f0000000020});
bool capturing, has_graph, has_executable;
std::string log_text;

int called(const char* name, bool valid) {
  log_text += std::string(name) + " ";
  const char* failing = getenv("FAIL");
  if (failing && !strcmp(failing, name)) return INVALIDATED;
  return valid ? SUCCESS : INVALID_HANDLE;
}

}  // namespace

extern "C" {

const char* calls() { return log_text.c_str(); }

int cuStreamBeginCapture_v2(void* stream, int mode) {
  const int code = called("cuStreamBeginCapture_v2", stream == STREAM && !capturing && mode == 1);
  capturing = code == SUCCESS;
  return code;
}

int cuStreamEndCapture(void* stream, void** graph) {
  const int code = called("cuStreamEndCapture", stream == STREAM && capturing);
  capturing = false;
  has_graph = code == SUCCESS;
  *graph = has_graph ? GRAPH : nullptr;
  return code;
}

int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
  const int code = called("cuGraphInstantiateWithFlags", has_graph && graph == GRAPH && flags == 0);
  has_executable = code == SUCCESS;
  *executable = has_executable ? EXECUTABLE : nullptr;
  return code;
}

int cuGraphDestroy(void* graph) {
  const int code = called("cuGraphDestroy", has_graph && graph == GRAPH);
  has_graph = false;
  return code;
}

int cuGraphLaunch(void* executable, void* stream) {
  return called("cuGraphLaunch", has_executable && executable == EXECUTABLE && stream == STREAM);
}

int cuGraphExecDestroy(void* executable) {
  const int code = called("cuGraphExecDestroy", has_executable && executable == EXECUTABLE);
  has_executable = false;
  return code;
}

int cuGetErrorName(int code, const char** name) {
  *name = code == INVALIDATED ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" : nullptr;
  return *name ? SUCCESS : INVALID_VALUE;
}
}
