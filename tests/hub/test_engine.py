"""One engine for all spawners of a process, and connections that nobody else waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from overlayspawner.hub import engine


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(engine, "_engines", {})
    monkeypatch.setattr(engine, "_connecting", {})
    return


async def test_all_that_ask_at_once_get_the_same() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    found = await asyncio.gather(*(engine.connect("one", make) for _ in range(8)))
    assert len(set(found)) == 1
    clients = len(made)
    assert await engine.connect("one", make) is found[0]
    assert len(made) == clients


async def test_a_refusal_is_not_remembered() -> None:
    def refuse() -> object:
        raise OSError("no engine")

    with pytest.raises(OSError, match="no engine"):
        await engine.connect("two", refuse)
    assert await engine.connect("two", object) is not None


@pytest.mark.timeout(60)
async def test_an_engine_that_hangs_holds_up_nobody_else() -> None:
    gone = threading.Event()

    def hang() -> object:
        gone.wait(30)
        raise OSError("no answer")

    waiting = [asyncio.ensure_future(engine.connect("three", hang)) for _ in range(20)]
    await asyncio.sleep(0)
    try:
        # tornado looks names up in the loop's default executor
        await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80), 10)
        waiting[0].cancel()
        assert not gone.is_set()
    finally:
        gone.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(r, OSError) for r in results[1:])
