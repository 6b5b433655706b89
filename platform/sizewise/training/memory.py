"""How much memory training took, as measured; `footprint` says beforehand what it will take."""

import contextlib
import resource
from pathlib import Path

import torch


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimizer's state: memory that training takes and the deployed model does not."""
    tensors = (
        value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    )
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_memory(device: torch.device) -> int:
    """Bytes: of device memory on a GPU, of resident memory of this process otherwise."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Count peaks of memory from here on, as Linux and CUDA allow; elsewhere they stay those of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is resident now
