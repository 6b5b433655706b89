"""How the owner of a worker group and its workers exchange trials and messages. Its process imports little."""

import asyncio
from typing import Any

from sizewise.engine.messages import Assignment, Message


class Mailbox:
    """An actor through which the owner hands trials to all workers, and rank 0 answers with messages."""

    def __init__(self) -> None:
        self._trials: list[Assignment | None] = []  # None: the workers shut down
        self._workers: list[Any] = []
        self._trial_added = asyncio.Condition()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._replies: asyncio.Queue[bool] = asyncio.Queue()

    async def register(self, worker: Any) -> None:
        """Keep a worker's actor handle, by which a worker that does not respond can still be ended."""
        self._workers.append(worker)

    async def registered(self) -> list[Any]:
        """The workers' actor handles."""
        return self._workers

    async def put_trial(self, assignment: Assignment | None) -> None:
        """Give all workers their next trial; None shuts them down."""
        async with self._trial_added:
            self._trials.append(assignment)
            self._trial_added.notify_all()

    async def next_trial(self, number: int) -> Assignment | None:
        """The group's trial of that number, as soon as there is one."""
        async with self._trial_added:
            await self._trial_added.wait_for(lambda: len(self._trials) > number)
            return self._trials[number]

    async def send(self, message: Message) -> None:
        """Send a message to the owner."""
        self._messages.put_nowait(message)

    async def send_and_wait(self, message: Message) -> bool:
        """Send a message to the owner and wait for the reply: whether to go on."""
        self._messages.put_nowait(message)
        return await self._replies.get()

    async def receive(self) -> Message:
        """The next message, as soon as there is one."""
        return await self._messages.get()

    async def reply(self, go_on: bool) -> None:
        """Reply to the message that waits."""
        self._replies.put_nowait(go_on)
