"""One of two processes that train the models of `clicks` together: it is given the meeting place and its rank."""

import sys

import pytest
import torch
from tests.contracts.gradients.clicks import RATES, Clicks, Transcription, batches, halves, loss_of
from torch import nn

# One of each method and storage: what differs between the others is how an element is found.
TRAINED = [
    *(
        "full",
        "full bfloat16",
        "full int8",
        "hash",
        "robe",
        "robe paper",
        "robe int8",
        "robe int4",
        "hash int2",
    ),
    *("qr product", "tt", "cce", "cce contiguous", "hash narrow", "hot"),
]


def data_parallel(meeting: str, rank: int) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    for case in TRAINED:
        model = Clicks(case)
        theirs = Transcription(model)
        parallel = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.Adagrad(parallel.parameters(), lr=RATES["adagrad"])
        for count, (ids, target) in enumerate(batches(case), 1):
            parallel.zero_grad()
            loss_of(parallel, *list(halves(ids, target))[rank]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            theirs.step("adagrad", theirs.gradients(ids, target), count)
        parallel.eval()
        theirs.compare(parallel, case, "adagrad")
    model.embedding.optimize_in_backward(torch.optim.SGD, lr=0.1)
    with pytest.raises(RuntimeError, match=r"several processes: call its ordinary_gradients\(\)"):
        parallel(ids)
    print(f"{len(TRAINED)} cases")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    data_parallel(sys.argv[1], int(sys.argv[2]))
