"""
Calls of other threads while the loop waits: they take effect, and raise nothing. On Twisted's epoll
reactor they do so by luck, so there are programs that make them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from unittest import main

from twisted.internet import abstract

from ropewalk.reactor import RopewalkReactor
from ropewalk_test import ReactorCase, Recorder, pair, stop


class Pipe(abstract.FileDescriptor):
    """
    The reading end of a pipe.
    """

    def __init__(self, reactor: RopewalkReactor, onData: Callable[[bytes], Any]) -> None:
        super().__init__(reactor)
        self.reads, self.writes = os.pipe()
        self.onData = onData

    def fileno(self) -> int:
        return self.reads

    def doRead(self) -> None:
        self.onData(os.read(self.reads, 100))

    def close(self) -> None:
        os.close(self.reads)
        os.close(self.writes)


class FromThreads(ReactorCase):
    def whileAsleep(self, reactor: RopewalkReactor, call: Callable[[], Any]) -> None:
        """
        Make a call on another thread while the loop waits. An exception of it fails the test.

        The thread begins in a callback, and the loop is not going to do anything afterwards. So the
        call is made in its wait, or between two waits.
        """

        def body() -> None:
            try:
                call()
            except BaseException as exception:
                self.trouble = exception
                reactor.callFromThread(stop, reactor)

        def begin() -> None:
            thread = threading.Timer(0.05, body)
            thread.start()
            self.addCleanup(thread.join)

        reactor.callWhenRunning(begin)

    def test_write(self) -> None:
        """100 KB, which the engine would hand to the socket at once, and a small piece behind
        them."""

        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def write() -> None:
                server.transport.write(b"x" * 100_000)
                server.transport.writeSequence([b"y", b"z"])
                server.transport.loseConnection()

            server.onMade = self.guarded(reactor, lambda _: self.whileAsleep(reactor, write))

            def lost(_: Recorder) -> None:
                self.assertEqual(client.received, b"x" * 100_000 + b"yz")
                reactor.stop()

            client.onLost = self.guarded(reactor, lost)
            pair(reactor, server, client)

        self.each(body)

    def test_pause_resume_and_abort(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def use() -> None:
                server.transport.pauseProducing()
                server.transport.resumeProducing()
                server.transport.loseWriteConnection()
                server.transport.abortConnection()

            server.onMade = self.guarded(reactor, lambda _: self.whileAsleep(reactor, use))
            client.onLost = self.guarded(reactor, lambda _: reactor.stop())
            pair(reactor, server, client)

        self.each(body)

    def test_readers(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            def received(data: bytes) -> None:
                self.assertEqual(data, b"hello")
                self.whileAsleep(reactor, remove)

            def remove() -> None:
                reactor.removeReader(pipe)
                reactor.callFromThread(check)

            def check() -> None:
                self.assertNotIn(pipe, reactor.getReaders())
                pipe.close()
                reactor.stop()

            check = self.guarded(reactor, check)
            pipe = Pipe(reactor, self.guarded(reactor, received))
            os.write(pipe.writes, b"hello")
            self.whileAsleep(reactor, lambda: reactor.addReader(pipe))

        self.each(body)

    def test_timers(self) -> None:
        """A timer of another thread wakes a loop that sleeps for longer."""

        def body(reactor: RopewalkReactor) -> None:
            far = reactor.callLater(1000, lambda: None)

            def set_timers() -> None:
                reactor.callLater(0, lambda: None).reset(0)
                far.delay(1)
                far.cancel()
                reactor.callLater(0.01, reactor.stop)

            self.whileAsleep(reactor, set_timers)

        self.each(body)

    def test_connect_and_listen(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()
            client.onMade = self.guarded(reactor, lambda _: reactor.stop())
            self.whileAsleep(reactor, lambda: pair(reactor, server, client))

        self.each(body)

    def test_stop(self) -> None:
        self.each(lambda reactor: self.whileAsleep(reactor, reactor.stop))

    def test_calls_of_many_threads_arrive_in_their_order(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            seen: list[tuple[int, int]] = []

            def call(thread: int) -> None:
                for number in range(500):
                    reactor.callFromThread(seen.append, (thread, number))

            def finish() -> None:
                for thread in range(4):
                    self.assertEqual([n for t, n in seen if t == thread], list(range(500)))
                reactor.stop()

            threads = [threading.Thread(target=call, args=(thread,)) for thread in range(4)]

            def join() -> None:
                for thread in threads:
                    thread.join()
                reactor.callFromThread(self.guarded(reactor, finish))

            reactor.callWhenRunning(lambda: [thread.start() for thread in threads])
            reactor.callWhenRunning(reactor.callInThread, join)

        self.each(body)

    def test_a_reactor_runs_in_another_thread(self) -> None:
        """On mio. A ring belongs to the thread that made it, and says so."""

        def body(reactor: RopewalkReactor) -> None:
            outcome: list[Any] = []

            def run() -> None:
                try:
                    reactor.run(installSignalHandlers=False)
                    outcome.append("ran")
                except RuntimeError as exception:
                    outcome.append(str(exception))

            quick = RopewalkReactor(reactor._engine.backend)
            reactor, outer = quick, reactor
            reactor.callLater(0, reactor.stop)
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            expected = "ran" if reactor._engine.backend == "mio" else "a ring belongs to the thread"
            self.assertIn(expected, outcome[0])
            outer.callLater(0, outer.stop)

        self.each(body)


if __name__ == "__main__":
    main()
