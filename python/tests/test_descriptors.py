"""
Foreign descriptors that their owners close too early, and the engine's log about them.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any
from unittest import main

from twisted.internet import abstract
from twisted.logger import LogLevel, globalLogPublisher

from ropewalk.reactor import RopewalkReactor
from ropewalk_test import ReactorCase


class Reader(abstract.FileDescriptor):
    """
    Reads a descriptor, and keeps what it is told.
    """

    def __init__(self, reactor: RopewalkReactor, number: int) -> None:
        super().__init__(reactor)
        self.number = number
        self.received = b""
        self.reason: Any = None
        self.onData: Any = lambda: None

    def fileno(self) -> int:
        return self.number

    def doRead(self) -> Any:
        self.received += os.read(self.number, 100)
        return self.onData()

    def connectionLost(self, reason: Any) -> None:
        self.reason = reason


class Descriptors(ReactorCase):
    def test_a_number_that_is_used_again_belongs_to_its_new_owner(self) -> None:
        """The first owner has closed the descriptor without removing it."""

        def body(reactor: RopewalkReactor) -> None:
            reads, writes = os.pipe()
            first = Reader(reactor, reads)
            reactor.addReader(first)
            os.close(reads)
            os.close(writes)
            again, writes = os.pipe()
            self.assertEqual(again, reads, "the lowest free number is given out")
            second = Reader(reactor, again)
            second.onData = self.guarded(reactor, lambda: self.finish(reactor, first, second, writes))
            reactor.addReader(second)
            # Behind the turn in which the end of the first watch is told.
            reactor.callLater(0.02, os.write, writes, b"hello")

        self.each(body)

    def finish(self, reactor: RopewalkReactor, first: Reader, second: Reader, writes: int) -> None:
        self.assertEqual((first.received, second.received), (b"", b"hello"))
        self.assertIsNone(second.reason)
        reactor.removeReader(second)
        self.assertNotIn(second, reactor.getReaders())
        os.close(second.number)
        os.close(writes)
        reactor.stop()

    def test_a_closed_descriptor_is_refused_and_logged(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            events: list[dict[str, Any]] = []
            globalLogPublisher.addObserver(events.append)
            self.addCleanup(globalLogPublisher.removeObserver, events.append)
            reads, writes = os.pipe()
            reader = Reader(reactor, reads)
            reactor.addReader(reader)
            os.close(reads)
            os.close(writes)
            self.assertRaises(OSError, reactor.addWriter, reader)
            self.assertEqual((reactor.getReaders(), reactor.getWriters()), ([], []))

            def check() -> None:
                [event] = [each for each in events if each.get("log_namespace") == "ropewalk"]
                self.assertIn("a watched descriptor is lost", event["text"])
                self.assertEqual(event["log_level"], LogLevel.error)
                reactor.stop()

            reactor.callLater(0.01, self.guarded(reactor, check))

        self.each(body)

    def test_a_file_is_polled(self) -> None:
        """No poller takes a file. It is read again and again, as on Twisted's epoll reactor."""

        def body(reactor: RopewalkReactor) -> None:
            file = tempfile.TemporaryFile()
            file.write(b"hello")
            file.seek(0)
            reader = Reader(reactor, file.fileno())

            def received() -> None:
                self.assertEqual(reader.received, b"hello")
                self.assertEqual(reactor.getReaders(), [reader])
                reactor.removeReader(reader)
                file.close()
                reactor.stop()

            reader.onData = self.guarded(reactor, received)
            reactor.addReader(reader)

        self.each(body)

    def test_a_hang_up_is_the_end(self) -> None:
        """The writing end of a pipe is closed: there is nothing to read, and the poller says so."""

        def body(reactor: RopewalkReactor) -> None:
            reads, writes = os.pipe()
            reader = Reader(reactor, reads)

            def lost(reason: Any) -> None:
                self.assertEqual(reason.type.__name__, "ConnectionDone")
                self.assertEqual(reader.received, b"")
                os.close(reads)
                reactor.stop()

            reader.connectionLost = self.guarded(reactor, lost)  # type: ignore[method-assign]
            reactor.addReader(reader)
            os.close(writes)

        self.each(body)

    def test_a_hang_up_beside_a_selectable_without_a_number(self) -> None:
        """No other selectable is asked for its number."""

        def body(reactor: RopewalkReactor) -> None:
            reads, writes = os.pipe()
            others = os.pipe()
            broken, reader = Reader(reactor, others[0]), Reader(reactor, reads)

            def lost(reason: Any) -> None:
                self.assertEqual(reason.type.__name__, "ConnectionDone")
                del broken.fileno
                reactor.removeReader(broken)
                for number in (reads, *others):
                    os.close(number)
                reactor.stop()

            reader.connectionLost = self.guarded(reactor, lost)  # type: ignore[method-assign]
            reactor.addReader(broken)
            broken.fileno = self.guarded(reactor, lambda: 1 // 0)  # type: ignore[method-assign]
            reactor.addReader(reader)
            os.close(writes)

        self.each(body)


if __name__ == "__main__":
    main()
