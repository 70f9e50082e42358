#ifndef OPENMM_TORCH_CUDA_GRAPH_H_
#define OPENMM_TORCH_CUDA_GRAPH_H_

namespace OpenMMDiffMD {

/**
 * Give torch's registry of graphs (at::GraphImplRegistry) one for CUDA, if it has none: torch
 * 2.13 registers none of its own, and without one lags are launched kernel by kernel.
 */
void registerTorchCudaGraph();

} // namespace OpenMMDiffMD

#endif /*OPENMM_TORCH_CUDA_GRAPH_H_*/
