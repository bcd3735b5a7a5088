"""
The reactor with an event loop of asyncio beside it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import signal
from collections.abc import Callable
from unittest import TestCase, main

from twisted.internet.error import ReactorAlreadyRunning

import ropewalk
from ropewalk.asyncioreactor import AsyncioRopewalkReactor
from ropewalk_test import BACKENDS, SECONDS, program

LINES = [
    "True True",
    "stream 1000000",
    "timer fired",
    "gather ['slept', 'slept']",
    "deferred slept",
    "thread done",
    "future filled",
    "child (b'hello\\n', None)",
    "signal True",
    "readers []",
]


class Asyncio(TestCase):
    def test_both_libraries_in_one_program(self) -> None:
        for backend in BACKENDS:
            for arguments, end in [([], ["result"]), (["stop"], ["cancelled", "CancelledError"])]:
                with self.subTest(backend=backend, arguments=arguments):
                    ran = program(["asyncio_beside_twisted.py", *arguments], ROPEWALK_BACKEND=backend)
                    self.assertEqual(ran.stdout.splitlines(), LINES + end, ran.stderr)
                    self.assertEqual(ran.stderr, "")

    def test_work_for_asyncio_ends_the_turns_of_the_engine(self) -> None:
        """Each call gives the other library its next one. No event of a descriptor helps it."""

        def play(reactor: AsyncioRopewalkReactor, loop: asyncio.AbstractEventLoop, seen: list[str]) -> None:
            def step(name: str, schedule: Callable[[], object]) -> Callable[[], None]:
                def call() -> None:
                    seen.append(name)
                    schedule()

                return call

            async def coroutine() -> None:
                await asyncio.sleep(0)
                step("coroutine", reactor.stop)()

            task = step("task", lambda: loop.create_task(coroutine()))
            thread = step("thread", lambda: loop.call_soon(task))
            later = step("call_later", lambda: reactor.callInThread(reactor.callFromThread, thread))
            timed = step("timed", lambda: loop.call_later(0.001, later))
            soon = step("call_soon", lambda: reactor.callLater(0.001, timed))
            reactor.callLater(0, step("first", lambda: loop.call_soon(soon)))
            reactor.callLater(SECONDS, reactor.stop)

        order = ["first", "call_soon", "timed", "call_later", "thread", "task", "coroutine"]
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                reactor, seen = AsyncioRopewalkReactor(backend), list[str]()
                play(reactor, reactor._asyncioEventloop, seen)
                reactor.run(installSignalHandlers=False)
                self.assertEqual(seen, order)
                reactor._asyncioEventloop.close()
                asyncio.set_event_loop(None)

    def test_asyncio_has_its_turn_beside_a_chain_of_calls(self) -> None:
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                reactor, counted = AsyncioRopewalkReactor(backend), [0, 0]
                loop = reactor._asyncioEventloop

                def again() -> None:
                    counted[0] += 1
                    if counted[0] < 10_000:
                        reactor.callLater(0, again)
                    else:
                        reactor.stop()

                async def beside() -> None:
                    while True:
                        counted[1] += 1
                        await asyncio.sleep(0)

                def begin() -> None:
                    tasks.append(loop.create_task(beside()))

                tasks: list[asyncio.Task[None]] = []
                reactor.callLater(0, again)
                reactor.callLater(0, begin)
                reactor.run(installSignalHandlers=False)
                # One step of each in a turn.
                self.assertAlmostEqual(counted[1], counted[0], delta=10)
                tasks[0].cancel()
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
                loop.close()
                asyncio.set_event_loop(None)

    def test_iterate_runs_both_loops(self) -> None:
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                reactor, seen = AsyncioRopewalkReactor(backend), list[str]()
                loop = reactor._asyncioEventloop

                async def beside() -> None:
                    await asyncio.sleep(0.01)
                    seen.append("slept")
                    self.assertRaises(ReactorAlreadyRunning, reactor.iterate)

                begun = loop.create_task(beside())
                reactor.callLater(0, seen.append, "timed")
                reactor.callLater(0, loop.call_soon, seen.append, "call_soon")
                until = reactor.seconds() + SECONDS
                while not begun.done() and reactor.seconds() < until:
                    reactor.iterate(0.005)
                begun.result()
                self.assertEqual(seen, ["timed", "call_soon", "slept"])
                loop.close()
                asyncio.set_event_loop(None)

    def test_a_program_may_stop_the_loop_of_asyncio(self) -> None:
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                reactor = AsyncioRopewalkReactor(backend)
                loop = reactor._asyncioEventloop
                late = reactor.callLater(SECONDS, reactor.stop)
                reactor.callLater(0, loop.stop)
                reactor.run(installSignalHandlers=False)
                self.assertTrue(late.active())
                loop.close()
                asyncio.set_event_loop(None)

    def test_a_loop_alone(self) -> None:
        """`ropewalk.run` is for programs without Twisted, and may be called again."""
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))

        async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()

        async def talk() -> tuple[bytes, int]:
            self.assertIs(type(asyncio.get_running_loop()), ropewalk.Loop)
            server = await asyncio.start_server(upper, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            answer = await reader.read()
            writer.close()
            server.close()
            return answer, await asyncio.to_thread(lambda: 5)

        async def wait_for_a_signal(seen: list[str]) -> None:
            try:
                asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
                await asyncio.sleep(SECONDS)
            finally:
                seen.append("cancelled")

        for backend in BACKENDS:
            with self.subTest(backend=backend):
                for _ in range(2):
                    self.assertEqual(ropewalk.run(talk(), backend=backend), (b"HELLO\n", 5))
                seen: list[str] = []
                self.assertRaises(KeyboardInterrupt, ropewalk.run, wait_for_a_signal(seen), backend=backend)
                self.assertEqual(seen, ["cancelled"])
        self.assertRaises(ValueError, ropewalk.run, talk(), backend="x")
        self.assertRaises(AttributeError, getattr, ropewalk, "absent")
        gc.collect()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_the_selector_is_one_of_the_library(self) -> None:
        """Registers, modifies and finds descriptors as `selectors` documents."""
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                reactor = AsyncioRopewalkReactor(backend)
                loop = reactor._asyncioEventloop
                selector = loop._selector
                reads, writes = os.pipe()
                key = selector.register(reads, selectors.EVENT_READ, "data")
                self.assertEqual((key.fd, key.events, key.data), (reads, selectors.EVENT_READ, "data"))
                self.assertRaises(KeyError, selector.register, reads, selectors.EVENT_READ)
                self.assertEqual(selector.get_key(reads), key)
                self.assertIn(reads, selector.get_map())
                self.assertEqual(selector.select(0), [])
                os.write(writes, b"x")
                # It is level-triggered.
                for _ in range(2):
                    self.assertEqual(selector.select(None), [(key, selectors.EVENT_READ)])
                other = selector.register(writes, selectors.EVENT_READ)
                other = selector.modify(writes, selectors.EVENT_WRITE, "other")
                self.assertEqual(dict(selector.select(1))[other], selectors.EVENT_WRITE)
                self.assertEqual(reactor.getReaders() + reactor.getWriters(), [])
                self.assertEqual(reactor.removeAll(), [])
                self.assertEqual(selector.unregister(reads), key)
                self.assertRaises(KeyError, selector.unregister, reads)
                self.assertRaises(KeyError, selector.get_key, reads)
                self.assertRaises(ValueError, selector.register, -1, selectors.EVENT_READ)
                os.close(writes)
                self.assertEqual(selector.unregister(writes), other)
                os.close(reads)
                loop.close()
                asyncio.set_event_loop(None)


if __name__ == "__main__":
    main()
