"""What the code of a provider's package cannot do to the worker it runs in."""

import asyncio
import sys
import threading

import pytest

from schemas.call import Timeouts
from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.provider_contract import HASTY, ask_of, both, outcome
from tests.plugin import Plugins, message, provider_class
from workers.http import Http
from workers.providers import make
from workers.providers.base import Answer, Deltas, Provider

HASTE = Timeouts(connect=5, first_byte=HASTY, idle=HASTY, total=HASTY)


@pytest.mark.parametrize(
    "method",
    [
        "async def {name}(self, messages, model):\n        time.sleep(1)",
        "async def {name}(self, messages, model):\n        await asyncio.Event().wait()",
        "def {name}(self, messages, model):\n        threading.Event().wait()",
        "async def {name}(self, messages, model):\n        while True:\n            try:\n"
        "                await asyncio.sleep(0.05)\n            except BaseException:\n"
        "                if len(asyncio.all_tasks()) == 0: return",
    ],
    ids=["blocks its loop", "waits for ever", "blocks a thread", "will not be cancelled"],
)
@both
async def test_code_that_does_not_return_is_left(
    plugins: Plugins, stream: bool, method: str
) -> None:
    methods = [method.format(name=name) for name in ("complete", "stream")]
    provider = plugins.make(provider_class(more="\n    ".join(methods)))
    failure = await outcome(provider, ask_of(stream=stream, timeouts=HASTE))
    assert (failure.info.status, failure.info.code) == (504, "timeout")


async def test_code_that_blocks_holds_up_nobody_else(plugins: Plugins, http: Http) -> None:
    blocking = "started.set(); let_go.wait(10); return 'Done'"
    code = "import threading\nstarted, let_go = threading.Event(), threading.Event()\n"
    module = plugins.install(code + provider_class(blocking))
    provider = make("mine", ProviderConfig(dialect="acme"), http, Clock())
    running = asyncio.create_task(_complete(provider))
    plugin = sys.modules[module]
    assert await asyncio.to_thread(plugin.started.wait, 10)
    other = make("mock", ProviderConfig(dialect="mock"), http, Clock())
    assert (await other.complete(ask_of())).finish_reason == "stop"
    assert not running.done()
    plugin.let_go.set()
    assert message(await running)["content"] == "Done"
    await provider.close()


async def test_threads_that_hang_are_no_more_than_the_providers_calls_at_once(
    plugins: Plugins,
) -> None:
    hanging = "def complete(self, messages, model):\n        threading.Event().wait()"
    provider = plugins.make(provider_class(more=hanging), concurrency=2)
    before = set(threading.enumerate())
    asks = [outcome(provider, ask_of(timeouts=HASTE)) for _ in range(5)]
    assert {failed.info.status for failed in await asyncio.gather(*asks)} == {504}
    assert len(set(threading.enumerate()) - before) == 2


async def test_a_task_of_its_own_that_ends_the_loop_ends_no_call(plugins: Plugins) -> None:
    code = provider_class(
        "asyncio.get_running_loop().create_task(self.leave()); return 'Hi'",
        more="async def leave(self):\n        raise SystemExit(3)",
    )
    provider = plugins.make(code)
    for _ in range(3):
        assert message(await provider.complete(ask_of()))["content"] == "Hi"


async def test_a_reader_that_is_slow_is_waited_for(plugins: Plugins) -> None:
    code = "made = 0\n" + provider_class(
        stream="global made\n        for made in range(5000): yield 'x'"
    )
    module = plugins.install(code)
    provider = plugins.made()
    pieces = provider.stream(ask_of(stream=True))
    first = await anext(pieces)
    plugin = sys.modules[module]
    assert isinstance(first, Deltas)
    settled = -1
    while settled != plugin.made:
        settled = plugin.made
        await asyncio.sleep(0.05)
    assert plugin.made < 200
    await pieces.aclose()


async def test_closing_a_stream_ends_its_generator(plugins: Plugins) -> None:
    code = "import threading\nleft = threading.Event()\n" + provider_class(
        stream="try:\n            yield 'x'\n            await asyncio.Event().wait()\n"
        "        finally:\n            left.set()"
    )
    module = plugins.install(code)
    pieces = plugins.made().stream(ask_of(stream=True))
    await anext(pieces)
    await pieces.aclose()
    assert await asyncio.to_thread(sys.modules[module].left.wait, 10)


async def _complete(provider: Provider) -> Answer:
    return await provider.complete(ask_of())
