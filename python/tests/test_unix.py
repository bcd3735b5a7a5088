"""
UNIX streams on the engine, and the log context of callbacks, which they show without a port.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from unittest import main

from zope.interface.verify import verifyObject

from twisted.internet import interfaces, unix
from twisted.python import context, log

from ropewalk.reactor import RopewalkReactor
from ropewalk_test import ReactorCase, Recorder


def depth() -> int:
    """
    Return the number of contexts on the stack of this thread.
    """
    return len(context.theContextTracker.currentContext().contexts)


class UNIX(ReactorCase):
    def adopt(self, reactor: RopewalkReactor, recorder: Recorder) -> socket.socket:
        """
        Connect a protocol to a socket, which is returned.
        """
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        factory = type("Factory", (), {"buildProtocol": lambda self, address: recorder})()
        reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        ours.close()
        return theirs

    def test_a_connection_is_one_of_twisteds(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            recorder = Recorder()
            theirs = self.adopt(reactor, recorder)
            transport = recorder.transport
            self.assertIsInstance(transport, unix.Server)
            self.assertTrue(transport._isAdopted)
            verifyObject(interfaces.IUNIXTransport, transport)
            self.assertEqual(reactor.getReaders(), [transport])
            recorder.onData = lambda _: reactor.stop()
            theirs.sendall(b"hello")

        self.each(body)

    def test_a_socket_that_the_program_closes_is_closed(self) -> None:
        """As in Twisted, the peer sees the end, and the protocol is told nothing."""

        def body(reactor: RopewalkReactor) -> None:
            recorder = Recorder()
            theirs = self.adopt(reactor, recorder)
            recorder.transport.socket.close()
            self.assertEqual(theirs.recv(1), b"")
            self.assertEqual(reactor.getReaders(), [])
            reactor.callLater(0, reactor.callLater, 0, reactor.stop)

        self.each(body)

    def test_a_duplicate_of_a_socket_object_closes_nothing_else(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            recorder = Recorder()
            theirs = self.adopt(reactor, recorder)
            duplicate = recorder.transport.socket.dup()
            number = duplicate.fileno()
            duplicate.close()
            self.assertRaises(OSError, os.fstat, number)
            recorder.onData = lambda _: reactor.stop()
            theirs.sendall(b"hello")

        self.each(body)

    def test_a_descriptor_may_be_closed_once_it_is_on_its_way(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            recorder = Recorder()
            theirs = self.adopt(reactor, recorder)
            reader, writer = os.pipe()
            os.write(writer, b"text")
            recorder.transport.write(b"x")
            recorder.transport.sendFileDescriptor(reader)
            os.close(reader)
            os.close(writer)

            def look() -> None:
                try:
                    data, descriptors, _, _ = socket.recv_fds(theirs, 10, 5)
                except BlockingIOError:
                    reactor.callLater(0, self.guarded(reactor, look))
                    return
                self.assertEqual((data, len(descriptors)), (b"x", 1))
                self.assertEqual(os.read(descriptors[0], 10), b"text")
                os.close(descriptors[0])
                reactor.stop()

            theirs.setblocking(False)
            reactor.callLater(0, self.guarded(reactor, look))

        self.each(body)

    def test_the_log_context_of_a_callback(self) -> None:
        """It is that of the connection, and no other callback sees it."""

        def body(reactor: RopewalkReactor) -> None:
            recorder, before = Recorder(), depth()
            theirs = self.adopt(reactor, recorder)
            seen: list[Any] = []

            def note() -> None:
                seen.append(context.get(log.ILogContext)["system"])

            def received(_: Recorder) -> None:
                note()
                context.call({log.ILogContext: {"system": "nested"}}, note)
                note()
                reactor.callLater(0, note)
                reactor.callLater(0, reactor.stop)

            recorder.onData = self.guarded(reactor, received)
            theirs.sendall(b"hello")
            reactor.addSystemEventTrigger("after", "shutdown", note)
            self.addCleanup(lambda: self.assertEqual(depth(), before))
            logstr = recorder.transport.logstr
            self.addCleanup(lambda: self.assertEqual(seen, [logstr, "nested", logstr, "-", "-"]))

        self.each(body)

    def test_a_turn_inside_of_a_context(self) -> None:
        """The callback sees both, in a run and outside of one. The stack is left as it was."""
        for in_run in (False, True):
            reactor, recorder, before = RopewalkReactor("mio"), Recorder(), depth()
            theirs = self.adopt(reactor, recorder)
            seen: list[Any] = []
            recorder.onData = lambda _: seen.append((context.get("key"), context.get(log.ILogContext)["system"]))
            if in_run:
                reactor._engine.begin()
            for number in (None, 1, 2):
                theirs.sendall(b"x")
                while len(seen) < (number or 0) + 1:
                    if number is None:
                        reactor._engine.turn(60)
                    else:
                        context.call({"key": number}, reactor._engine.turn, 60)
            if in_run:
                reactor._engine.end()
            self.assertEqual(seen, [(number, recorder.transport.logstr) for number in (None, 1, 2)])
            self.assertEqual(depth(), before)


if __name__ == "__main__":
    main()
