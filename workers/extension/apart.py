"""An event loop in a thread of its own, for code that may block its loop, end it, or never return.

Nothing of it can hold up the worker's loop: who waits here waits with a timeout, and leaves.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

# So many pieces may wait for their reader.
_AHEAD = 64
_LEAVE_WITHIN = 1.0


class Raised(Exception):
    """What code that ran apart has raised, whichever kind it was: a cancellation of its own or a
    SystemExit must not be taken for one of ours."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class _Outcome(NamedTuple, Generic[T]):
    value: T | None = None
    error: BaseException | None = None

    def get(self) -> T:
        if self.error is not None:
            raise Raised(self.error) from self.error
        return self.value  # type: ignore[return-value]


class Apart:
    """The loop and its threads; at most `threads` of these at once, also of such as hang."""

    def __init__(self, name: str, threads: int) -> None:
        self._name = f"apart-{name}"
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._free = asyncio.Semaphore(threads)
        self._stopping = False
        # Nobody waits for a daemon when the process ends.
        self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, T]) -> "Future[_Outcome[T]]":
        """Runs a coroutine on this loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(_outcome(work), self._loop)

    def wait(self, work: Coroutine[Any, Any, T], within: float) -> T:
        """As `run`, for who has no loop. Raises TimeoutError after `within` seconds."""
        future = self.begin(work)
        try:
            return future.result(within).get()
        finally:
            future.cancel()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives that runs on this loop; raises Raised. Who is cancelled while he
        waits leaves at once, and the coroutine is told."""
        return (await asyncio.wrap_future(self.begin(work))).get()

    async def relay(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[list[T], None]:
        """What a generator that runs on this loop yields, in lists of what has come together;
        raises Raised. One task reads it from its begin to its end, and not far ahead."""
        here = asyncio.get_running_loop()
        arrived: asyncio.Queue[T | None] = asyncio.Queue()
        room = asyncio.Semaphore(_AHEAD)

        async def pump() -> None:
            async with aclosing(items):
                async for item in items:
                    await room.acquire()
                    here.call_soon_threadsafe(arrived.put_nowait, item)

        future = self.begin(pump())
        future.add_done_callback(lambda _: here.call_soon_threadsafe(arrived.put_nowait, None))
        try:
            ended = False
            while not ended:
                got = [await arrived.get()]
                while not arrived.empty():
                    got.append(arrived.get_nowait())
                ended = got[-1] is None
                pieces = [item for item in got if item is not None]
                if pieces:
                    yield pieces
                    self._loop.call_soon_threadsafe(_release, room, len(pieces))
            future.result().get()
        finally:
            future.cancel()

    async def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """On this loop: what a method gives, which may be asynchronous or may block."""
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            given = method(*args, **kwargs)
        else:
            given = await self.in_thread(partial(method, *args, **kwargs))
        return await given if inspect.isawaitable(given) else given

    async def in_thread(self, function: Callable[[], T]) -> T:
        """On this loop: what a function gives that runs in a thread; it cannot be cancelled."""
        await self._free.acquire()
        done: asyncio.Future[_Outcome[T]] = self._loop.create_future()

        def ended(outcome: _Outcome[T]) -> None:
            self._free.release()
            if not done.cancelled():
                done.set_result(outcome)

        def work() -> None:
            try:
                outcome = _Outcome(function())
            except BaseException as error:
                outcome = _Outcome[T](error=error)
            with suppress(RuntimeError):  # The loop has gone.
                self._loop.call_soon_threadsafe(ended, outcome)

        threading.Thread(target=work, name=self._name, daemon=True).start()
        outcome = await done
        if outcome.error is not None:
            raise outcome.error
        return outcome.value  # type: ignore[return-value]

    def stop(self) -> None:
        """Cancels what runs and ends the loop; what does not listen is left behind."""
        self._stopping = True
        with suppress(RuntimeError):  # It has ended by itself.
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LEAVE_WITHIN)

    def _serve(self) -> None:
        while not self._stopping:
            # A SystemExit in a task of theirs ends the loop: it goes on.
            with suppress(BaseException):
                self._loop.run_forever()
        self._runner.close()


async def _outcome(work: Coroutine[Any, Any, T]) -> "_Outcome[T]":
    try:
        return _Outcome(await work)
    except BaseException as error:
        return _Outcome(error=error)


def _release(room: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        room.release()
