"""Where the owner of a worker group and its workers meet. Its process imports nothing that takes time."""

import asyncio
from typing import Any


class Desk:
    """Where orders (a trial's payload each) go down to the workers, and messages come up from rank 0."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any] | None] = []  # None: go home
        self.workers: list[Any] = []
        self._ordered = asyncio.Condition()
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[bool] = asyncio.Queue()

    async def sign_in(self, worker: Any) -> None:
        """Take a worker's actor handle, by which a worker that hears nothing can still be ended."""
        self.workers.append(worker)

    async def signed_in(self) -> list[Any]:
        """The workers' handles."""
        return self.workers

    async def give(self, order: dict[str, Any] | None) -> None:
        """Give all workers their next order."""
        async with self._ordered:
            self.orders.append(order)
            self._ordered.notify_all()

    async def order(self, number: int) -> dict[str, Any] | None:
        """The order of that number, as soon as there is one."""
        async with self._ordered:
            await self._ordered.wait_for(lambda: len(self.orders) > number)
            return self.orders[number]

    async def tell(self, message: dict[str, Any]) -> None:
        """Pass a message up."""
        self._messages.put_nowait(message)

    async def ask(self, message: dict[str, Any]) -> bool:
        """Pass a message up and wait for the answer: whether to go on."""
        self._messages.put_nowait(message)
        return await self._answers.get()

    async def listen(self) -> dict[str, Any]:
        """The next message."""
        return await self._messages.get()

    async def answer(self, go_on: bool) -> None:
        """Answer the message that waits."""
        self._answers.put_nowait(go_on)
