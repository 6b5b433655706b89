"""An embedding that steps by itself, in its backward pass: no gradient of a table is made.

    optimizer = embedding.optimize_in_backward(torch.optim.Adagrad, lr=0.02)
    others = torch.optim.Adam(remaining_parameters(model))
    loss.backward()    # steps the embedding, at the end of the pass, by the sum of all gradients that it gave
    others.step()      # steps the rest

This is the contract of FBGEMM's tables. SGD (without momentum) and Adagrad leave a number alone whose gradient is
zero. So where the fused kernels look vectors up, the gradients of what a batch read are carried straight into the
table: a step costs what the batch reads, however large the table. Values equal those of `torch.optim` up to the
rounding of float32, and the optimizer is one of `torch.optim`: its state, its settings, its schedulers. On a GPU a
table smaller than what a batch reads of it is stepped as a unit, in one pass over the sums of its gradients, which
costs less. All other optimizers and tables make a gradient of the table, step by it at the same moment, and drop it.

Nobody else may use such a gradient afterwards: in its place lies an `Applied`, which raises where it is clipped,
unscaled or stepped by.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sizewise.embedding.kernels.blocks.passes import Adagrad
from sizewise.embedding.kernels.cpu import Blocks

if TYPE_CHECKING:
    from sizewise.embedding.kernels.gpu import DeviceBlocks

LEAST_EPSILON = 1e-37  # a float32 below it can be zero
SETTINGS_OF_NO_KERNEL = ("momentum", "weight_decay", "lr_decay", "maximize", "differentiable")


class SteppedTable(Protocol):
    """A table that can be stepped here: `storage.table.Table`, which uses this module, not the other way round."""

    weight: nn.Parameter
    stepper: "InBackward | None"

    @property
    def storage(self) -> str:
        """How its numbers are stored, such as `bfloat16`."""
        ...

    @property
    def steps_in_kernels(self) -> bool:
        """Whether fused kernels can step it by gradients of vectors."""
        ...

    def sums(self) -> Tensor:
        """A buffer like the weight for kernels to sum gradients in."""
        ...

    def next_stream(self) -> int | Tensor:
        """What the next rounding draws its noise from."""
        ...

    def was_stepped(self) -> None:
        """Note that kernels have changed the values, and rounded them."""
        ...

    def step_int8(self, blocks: Blocks, ids: Any, rate: float, adagrad: Adagrad | None) -> None:
        """A step by the sums, and the rounding, of a table in int8.

        Args: as for `storage.table.Table.step_int8`.
        """
        ...


class Pending(NamedTuple):
    """A gradient of vectors that is carried into their table at the end of the backward pass."""

    blocks: "Blocks | DeviceBlocks"
    ids: Any  # a tensor, or `Ragged`
    gradient: Tensor | None
    """(batch, features, dim); None where it was added to the table's `sums` already, which took less."""


class Applied(Tensor):
    """Lies where a parameter's gradient was, once that has been stepped by: it can be dropped, and nothing else."""

    # What PyTorch asks of any gradient on the way to zeroing or dropping it.
    HARMLESS = frozenset(
        {"__get__", "size", "dim", "numel", "is_floating_point", "is_complex", "element_size"}
    )
    DROPPED = frozenset({"zero_", "detach_", "requires_grad_"})

    @classmethod
    def like(cls, parameter: Tensor) -> "Applied":
        """One of the shape of a parameter, which takes the memory of one number."""
        zero = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
        made: Applied = torch.Tensor._make_subclass(cls, zero.expand(parameter.shape))
        return made

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name in cls.DROPPED:
            return args[0]
        if name == "_foreach_zero_":
            return function([gradient for gradient in args[0] if not isinstance(gradient, cls)])
        if name in cls.HARMLESS:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **(kwargs or {}))
        raise RuntimeError(
            "an embedding has stepped by this gradient in its backward pass (optimize_in_backward): leave its "
            "parameters out with sizewise.embedding.remaining_parameters(model), or call its ordinary_gradients()"
        )

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Applied(shape={tuple(self.shape)})"


class InBackward:
    """What steps tables in backward passes: an optimizer, and which tables.

    Args:
        optimizer: one of `torch.optim`, whose parameters include the tables'.
        tables: to step in backward passes.
        owned: the optimizer's parameters are all to be stepped so, also by gradients that no kernel takes. Otherwise
            they wait for the optimizer's own `step`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, tables: Sequence[SteppedTable], owned: bool) -> None:
        self.optimizer, self.owned = optimizer, owned
        # Weak, like all that points back here: tables, which may be large, go with their model, not when Python
        # looks for cycles.
        self._tables = [weakref.ref(table) for table in tables]
        # By the backward pass that they belong to: one can run within another (torch.utils.checkpoint).
        self._passes: dict[int, dict[SteppedTable, list[Pending]]] = {}
        self._marks: dict[nn.Parameter, Applied] = {}
        # Of an owned optimizer nothing of `tables` is read here: while a model is copied they are not filled yet.
        self._weights: list[nn.Parameter] = [table.weight for table in tables] if not owned else []
        self._weights += [weight for group in optimizer.param_groups if owned for weight in group["params"]]
        self._hooks = [optimizer.register_step_pre_hook(_weakly(self._clear))]
        for weight in self._weights:
            self._hooks.append(weight.register_hook(_weakly(self._clear)))  # type: ignore[no-untyped-call]
            if owned:
                after = weight.register_post_accumulate_grad_hook(_weakly(self._arrived))  # type: ignore[no-untyped-call]
                self._hooks.append(after)

    def __reduce__(self) -> Any:
        # A copy of a model has a copy of the optimizer that its embedding owns. One that was made for a model as a
        # whole is not copied with a part of it: the copy's gradients are ordinary ones.
        if not self.owned:
            return _nothing, ()
        return InBackward, (self.optimizer, self.tables, True)

    @property
    def tables(self) -> list[SteppedTable]:
        """Those to step in backward passes."""
        return [table for table in (reference() for reference in self._tables) if table is not None]

    def detach(self) -> None:
        """Leave the tables' gradients to others again."""
        self.forget()
        self.drop_marks()
        for hook in self._hooks:
            hook.remove()
        for table in self.tables:
            table.stepper = None

    def lookup_begins(self) -> None:
        """Before a table is read: raises where its step in the backward pass would be wrong.

        Raises:
            RuntimeError: several processes train together.
        """
        if self._passes and torch._C._current_graph_task_id() == -1:  # of a pass that failed
            self.forget()
        distributed = torch.distributed
        if (
            torch.is_grad_enabled()
            and distributed.is_available()
            and distributed.is_initialized()
            and distributed.get_world_size() > 1
        ):
            raise RuntimeError(
                "an embedding that steps in its backward pass (optimize_in_backward) does not add up the gradients of "
                "several processes: call its ordinary_gradients() before DistributedDataParallel"
            )

    def takes(self, table: SteppedTable, node: torch.autograd.graph.Node) -> bool:
        """Whether kernels step a table by gradients of its vectors, in the backward pass that is running.

        Args:
            table: one of those to step.
            node: of the graph, to which its ordinary gradient would go.
        """
        if not table.steps_in_kernels or not isinstance(
            self.optimizer, (torch.optim.SGD, torch.optim.Adagrad)
        ):
            return False
        group = self._group(table)
        if any(group.get(name) for name in SETTINGS_OF_NO_KERNEL):
            return False
        # Kernels for int8 round as the optimizer's own operations do, one after another. With an epsilon of zero these
        # make numbers NaN that no id reads.
        if table.storage == "int8" and (
            group.get("fused") or group.get("foreach") or group.get("eps", 1.0) < LEAST_EPSILON
        ):
            return False
        try:
            return torch._C._will_engine_execute_node(node)
        except (
            RuntimeError
        ):  # torch.autograd.grad runs, which is to return this table's gradient, and changes nothing
            return False

    def put_off(self, table: SteppedTable, pending: Pending) -> None:
        """Carry this into the table at the end of the backward pass that is running."""
        self._pass().setdefault(table, []).append(pending)

    def forget(self) -> None:
        """Drop what no step has taken."""
        for waiting in self._passes.values():
            for table, pending in waiting.items():
                if any(part.gradient is None for part in pending):
                    table.sums().zero_()
        self._passes.clear()

    def drop_marks(self) -> None:
        """Leave no `Applied` where gradients were."""
        for weight in self._weights:
            if isinstance(weight.grad, Applied):
                weight.grad = None

    def _clear(self, *_: Any) -> None:
        """Before an ordinary gradient comes, or the optimizer's own step, which has nothing left to do."""
        self.drop_marks()

    def _group(self, table: SteppedTable) -> dict[str, Any]:
        groups = self.optimizer.param_groups
        return next(group for group in groups if any(w is table.weight for w in group["params"]))

    def _pass(self) -> dict[SteppedTable, list[Pending]]:
        """What waits for the end of the backward pass that is running."""
        task = torch._C._current_graph_task_id()
        if task not in self._passes:
            self._passes[task] = {}
            # As PyTorch's own data-parallel wrappers do: called when all gradients are there.
            engine = torch.autograd.Variable._execution_engine
            engine.queue_callback(lambda: self._finish(task))
        return self._passes[task]

    def _arrived(self, weight: Tensor) -> None:
        """A gradient of a table is there that no kernel has taken."""
        if is_gradient(weight.grad):
            self._pass()

    @torch.no_grad()
    def _finish(self, task: int) -> None:
        """The step, at the end of a backward pass."""
        stepped: list[nn.Parameter] = []
        for table, pending in self._passes.pop(task).items():
            # Another came in the usual way: one step, by their sum. With int8 the bits are those of sums of gradients,
            # and Triton, which interprets also where the table is a CPU's, has no kernel that rounds.
            in_one_step = len(pending) == 1 and isinstance(pending[0].blocks, Blocks)
            if is_gradient(table.weight.grad) or (table.storage == "int8" and not in_one_step):
                _add(table, pending)
                continue
            self._step(table, pending)
            stepped.append(table.weight)
        others = [weight for weight in self._weights if self.owned and is_gradient(weight.grad)]
        if others:
            self.optimizer.step()
        elif self.owned:
            self.optimizer._opt_called = True  # type: ignore[attr-defined]  # what schedulers of rates look at
        for weight in (*stepped, *others):
            if weight not in self._marks:
                self._marks[weight] = Applied.like(weight)
            weight.grad = self._marks[weight]

    def _step(self, table: SteppedTable, pending: list[Pending]) -> None:
        """Step a table by the gradients of its vectors."""
        rate, adagrad = float(self._group(table)["lr"]), self._counted(table)
        if table.storage == "int8":
            ((blocks, ids, gradient),) = pending
            assert isinstance(blocks, Blocks)
            assert gradient is not None
            blocks.scatter(table.sums(), ids, gradient)
            table.step_int8(blocks, ids, rate, adagrad)
            return
        if adagrad is None:
            for blocks, ids, gradient in pending:
                if gradient is not None:
                    blocks.scatter(table.weight, ids, gradient, -rate)
            rounded = _step_whole(table, pending, rate)
        else:
            # Adagrad squares the sum of what a batch says about a number.
            for blocks, ids, gradient in pending:
                if gradient is not None:
                    blocks.scatter(table.sums(), ids, gradient)
            rounded = _step_whole(table, pending, rate, **adagrad._asdict())
            if not rounded:
                rounded = _step_read(table, pending, rate, adagrad)
        if table.storage == "bfloat16" and not rounded:
            stream = table.next_stream()
            for blocks, ids, _ in pending:
                blocks.round_bfloat16(table.weight, ids, stream)  # type: ignore[arg-type]
        table.was_stepped()

    def _counted(self, table: SteppedTable) -> Adagrad | None:
        """What Adagrad keeps of a table, whose step it counts; None if the optimizer is SGD."""
        if isinstance(self.optimizer, torch.optim.SGD):
            return None
        state = self.optimizer.state[table.weight]
        if state["sum"].device != table.weight.device:
            raise RuntimeError(
                f"the embedding is on {table.weight.device}, its optimizer's state on {state['sum'].device}: "
                "move the model before optimize_in_backward"
            )
        state["step"] += 1
        return Adagrad(state["sum"], float(self._group(table)["eps"]))


def step_tables(
    optimizer: torch.optim.Optimizer, tables: Sequence[SteppedTable], *, owned: bool = False
) -> None:
    """Have backward passes step tables.

    Args: as for `InBackward`.
    """
    stepper = InBackward(optimizer, tables, owned)
    for table in tables:
        table.stepper = stepper


def remaining_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of a model that no embedding steps by itself: for an optimizer, or for clipping gradients."""
    tables = [module for module in model.modules() if getattr(module, "stepper", None) is not None]
    stepped = {id(weight) for table in tables for weight in table.parameters()}
    return (parameter for parameter in model.parameters() if id(parameter) not in stepped)


def is_gradient(gradient: Tensor | None) -> bool:
    """Whether there is a gradient that nobody has stepped by."""
    return gradient is not None and not isinstance(gradient, Applied)


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """The method of an object that is not kept for it."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        bound = reference()
        if bound is not None:
            bound(*arguments)

    return call


def _nothing() -> None:
    return None


def _step_whole(table: SteppedTable, pending: list[Pending], rate: float, **adagrad: Any) -> bool:
    """Step, and round, a whole table by its sums, where gradients were summed; says whether it did."""
    for blocks, _, gradient in pending:
        if gradient is None:
            assert not isinstance(blocks, Blocks)
            stream = table.next_stream() if table.storage == "bfloat16" else None
            blocks.dense_step(table.weight, table.sums(), rate, stream=stream, **adagrad)
            return True
    return False


def _step_read(table: SteppedTable, pending: list[Pending], rate: float, adagrad: Adagrad) -> bool:
    """A step of Adagrad, by a table's sums, of what was read; says whether that was rounded."""
    rounds = table.storage == "bfloat16" and all(isinstance(part.blocks, Blocks) for part in pending)
    stream: Any = (table.next_stream(),) if rounds else ()
    for blocks, ids, _ in pending:
        blocks.adagrad(table.weight, table.sums(), adagrad.squares, ids, rate, adagrad.epsilon, *stream)
    return rounds


def _add(table: SteppedTable, pending: list[Pending]) -> None:
    """Add gradients of vectors to the gradient of their table."""
    if table.storage == "int8":  # as PyTorch does it: one after the other, and then to what was there
        parts = [torch.zeros_like(table.weight) for _ in pending]
        for part, (blocks, ids, gradient) in zip(parts, pending, strict=True):
            assert gradient is not None
            blocks.scatter(part, ids, gradient)
        for part in parts[1:]:
            parts[0] += part
        before = table.weight.grad
        table.weight.grad = before + parts[0] if before is not None and is_gradient(before) else parts[0]
        return
    summed = table.weight.grad
    assert summed is not None
    for blocks, ids, gradient in pending:
        if gradient is not None:
            blocks.scatter(summed, ids, gradient)
    if any(gradient is None for _, _, gradient in pending):
        summed += table.sums()
        table.sums().zero_()
