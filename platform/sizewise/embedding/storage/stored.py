"""A table as it is stored, in fewer bits than 32: what deployed models hold in its place, and only read.

    stored = Stored(table)
    stored.rows(numbers)                      # float32 (..., row), as `table.rows` gives them
    stored.blocks(starts, length=8, stride=4) # float32 (n, 8), as blocks of a flat pool

Only what is asked for becomes float32, so that a small model stays small while it serves. Plain operations of PyTorch,
all of which `torch.export` takes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from sizewise.embedding.storage.quantization import PACKED, Grid, dequantize, unpack_bytes
from sizewise.embedding.storage.table import Table


class Stored(nn.Module):
    """The numbers of a table in their storage, and their scales."""

    weight: Tensor
    scale: Tensor

    def __init__(self, table: Table) -> None:
        super().__init__()
        state = table.state_dict()
        self.shape, self.group, self.center = table.shape, table.group, table.center
        self.bits = PACKED.get(table.storage, 0)
        self.register_buffer("weight", state["weight"])
        # A bfloat16 is what it stands for: a scale would be four bytes more.
        self.scaled = "scale" in state
        if self.scaled:
            self.register_buffer("scale", state["scale"])

    def forward(self) -> Tensor:
        """All values as float32."""
        if not self.bits:
            return self._float(self.weight)
        values = dequantize(self.weight, self.scale, self.bits, self.shape, self.group)
        return values + self.center if self.center else values

    def rows(self, numbers: Tensor) -> Tensor:
        """Rows of the values.

        Args:
            numbers: int64, of any shape.
        """
        row = math.prod(self.shape[1:])
        if not self.bits:
            return self._float(embedding(numbers, self.weight))
        if not self.reads_blocks(row, row):
            return embedding(numbers, self())
        rows = self.blocks(numbers.flatten(), row, row)
        return rows if numbers.dim() == 1 else rows.view(*numbers.shape, row)

    def reads_blocks(self, length: int, stride: int) -> bool:
        """Whether blocks of that length, which start on multiples of the stride, begin and end on bytes."""
        return not self.bits or (length * self.bits % 8 == 0 and stride * self.bits % 8 == 0)

    def blocks(self, starts: Tensor, length: int, stride: int) -> Tensor:
        """Consecutive numbers of the flattened values, (n, length).

        Args:
            starts: int64 (n,), in strides.
            length: numbers of a block.
            stride: numbers from one start to the next.
        """
        count = (math.prod(self.shape) - length) // stride + 1
        flat = self.weight.view(-1)
        if not self.bits:
            return self._float(flat.as_strided((count, length), (stride, 1)).index_select(0, starts))
        width, step = length * self.bits // 8, stride * self.bits // 8
        packed = flat.as_strided((count, width), (step, 1)).index_select(0, starts)
        codes = unpack_bytes(packed, self.bits).float()
        scales = self.scale.float()
        if self.group is not None:
            positions = (starts * stride).unsqueeze(1) + torch.arange(length, device=starts.device)
            scales = scales[positions // self.group]
        values = Grid.of(self.bits).values(codes, scales)
        return values + self.center if self.center else values

    def _float(self, numbers: Tensor) -> Tensor:
        """Values of int8 or bfloat16 numbers."""
        return numbers.float() * self.scale if self.scaled else numbers.float()
