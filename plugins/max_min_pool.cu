// The launchers that the library exports.
#include "max_min_pool.cuh"

namespace max_min_pool {

template cudaError_t launch<float>(const float*, float*, const Arguments&, cudaStream_t, int);
template cudaError_t launch<__half>(const __half*, float*, const Arguments&, cudaStream_t, int);

}  // namespace max_min_pool
