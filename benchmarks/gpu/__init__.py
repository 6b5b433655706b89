"""Embeddings and whole training steps on one GPU, side by side in one run.

    python -m benchmarks.gpu                                 # from the repository's root; one GPU, some 3 minutes
    python -m benchmarks.gpu --parts checks,embeddings       # some of it
    python -m benchmarks.gpu --smoke                         # tiny sizes, in Triton's interpreter; times mean nothing
    WHEELS=wheels OUT=out bash benchmarks/gpu/on_device.sh   # where Sizewise is not installed, and tests first

Each part runs in a process of its own with a limit of its own: what fails, a fault on the device included, leaves the
others. Parts write what they find to `--out` at once, and a second call measures those that are missing or failed.
After each part all that was found is written over the section "GPU" of benchmarks/RESULTS.md (`--results`).

The first part checks every kernel against its PyTorch twin on this device; where one differs, the results say so and
the exit code is 1. A variant that fails is said to have failed in its row. Without a CUDA device the program says so in
one line and ends with exit code 2: nothing was measured.

`sizes` has what is measured and the goals, `variants` what is compared, `checks` the twins, `bench` how times are
taken, `parts`, `reads` and `memory` the tables, `limits` the rooflines and what exchanging embeddings between cards
costs.
"""
