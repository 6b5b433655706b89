"""Embeddings and whole training steps on one GPU, side by side in one run.

    python -m benchmarks.gpu             # from the repository's root; one GPU, no Ray, under 8 minutes
    python -m benchmarks.gpu --sweep     # other tile sizes and warps, for the defaults of `Launch`
    python -m benchmarks.gpu --smoke     # tiny sizes, without a GPU in Triton's interpreter; its times mean nothing

When a GPU is at hand, in this order:

    pytest tests/contracts                                       # methods on CUDA equal those on the CPU
    export TRITON_INTERPRET=0                                    # kernels, not Triton's interpreter
    pytest tests/sizewise/embedding/test_gpu_kernels.py          # every kernel equals its twin: races, alignment
    pytest tests/sizewise/embedding/test_gpu_on_device.py        # graphs, 64-bit positions, no waiting
    python -m benchmarks.gpu                                     # checks every kernel again, then times

On a machine where Sizewise is not installed, only PyTorch, Triton, NumPy, numba, pydantic, pyarrow and safetensors:
`export PYTHONPATH=platform:data_prep`, and of the contracts `tests/contracts/test_embedding_contract.py`.

The run first checks every kernel against its PyTorch twin on this device and ends with exit code 1 where one differs.
Then it times, and writes what it found over the section "GPU" of benchmarks/RESULTS.md; a way that fails is said to
have failed in its row, costs exit code 1, and leaves the others as they are. Without a CUDA device it says
so in one line and ends with exit code 2: nothing was measured.

`sizes` has what is measured and the goals, `ways` what is compared, `checks` the twins, `limits` the rooflines and
what exchanging embeddings between cards costs.
"""
