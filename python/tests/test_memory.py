"""
Memory and descriptors: abandoned reactors are collected, collections at any moment break nothing,
and no socket object closes a descriptor of the engine.
"""

from __future__ import annotations

import gc
import os
import socket
import warnings
import weakref
from typing import Any
from unittest import main

from ropewalk.reactor import RopewalkReactor
from ropewalk_test import BACKENDS, ReactorCase, Recorder, pair


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Memory(ReactorCase):
    def test_an_abandoned_reactor_is_collected(self) -> None:
        """Its timers, connections and ports refer to it, and it to them."""
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                gc.collect()
                before = descriptors()
                kept = []
                for _ in range(5):
                    kept.append(self.abandoned(backend))
                with warnings.catch_warnings():
                    # The ports are never stopped, so the collection closes their sockets.
                    warnings.simplefilter("ignore", ResourceWarning)
                    gc.collect()
                self.assertEqual([each() for each in kept], [None] * 5)
                self.assertLessEqual(descriptors(), before)

    def abandoned(self, backend: str) -> weakref.ref[RopewalkReactor]:
        reactor = RopewalkReactor(backend)
        server, client = Recorder(), Recorder()
        port = pair(reactor, server, client)
        server.timers = [reactor.callLater(100, lambda: (reactor, server)), reactor.callLater(100, port.getHost)]
        client.onMade = lambda _: reactor.crash()
        reactor.run(installSignalHandlers=False)
        self.assertTrue(client.transport.connected)
        return weakref.ref(reactor)

    def test_a_collection_at_any_moment_is_harmless(self) -> None:
        thresholds = gc.get_threshold()
        self.addCleanup(gc.set_threshold, *thresholds)

        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()
            server.onData = lambda each: each.transport.write(each.received[-10:])
            client.onMade = lambda each: each.transport.write(b"0123456789")

            def received(each: Recorder) -> None:
                reactor.callLater(1000, lambda: each).cancel()
                if len(each.received) >= 500:
                    each.transport.loseConnection()
                else:
                    each.transport.write(b"0123456789")

            client.onData = self.guarded(reactor, received)
            server.onLost = self.guarded(reactor, lambda _: reactor.stop())
            pair(reactor, server, client)
            gc.set_threshold(1)

        try:
            self.each(body)
        finally:
            gc.set_threshold(*thresholds)

    def test_a_socket_object_does_not_close_the_descriptor(self) -> None:
        """Neither `close` nor a collection does, and a connection that is over leaves no number."""

        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()
            handles: list[Any] = []

            def made(each: Recorder) -> None:
                handle = each.transport.getHandle()
                handles.append(handle)
                self.assertGreater(handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), 0)
                number = handle.fileno()
                os.fstat(number)
                handle.close()
                os.fstat(number)
                each.transport.loseConnection()

            def lost(_: Recorder) -> None:
                self.assertEqual(handles[0].fileno(), -1)
                reactor.stop()

            server.onMade = self.guarded(reactor, made)
            client.onLost = self.guarded(reactor, lost)
            pair(reactor, server, client)

        self.each(body)

    def test_a_duplicate_of_a_socket_object_is_the_programs(self) -> None:
        """Closing it closes its descriptor. Neither of the two objects blocks."""

        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def made(each: Recorder) -> None:
                handle = each.transport.getHandle()
                self.assertEqual((handle.gettimeout(), handle.getblocking()), (0.0, False))
                duplicate = handle.dup()
                number = duplicate.fileno()
                self.assertNotEqual(number, handle.fileno())
                self.assertEqual(duplicate.getpeername(), handle.getpeername())
                self.assertRaises(BlockingIOError, duplicate.recv, 1)
                duplicate.close()
                self.assertRaises(OSError, os.fstat, number)
                each.transport.write(b"hello")
                each.transport.loseConnection()

            def lost(each: Recorder) -> None:
                self.assertEqual(each.received, b"hello")
                reactor.stop()

            server.onMade = self.guarded(reactor, made)
            client.onLost = self.guarded(reactor, lost)
            pair(reactor, server, client)

        self.each(body)

    def test_closed_connections_leave_nothing(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            lost: list[Recorder] = []

            def over(each: Recorder) -> None:
                each.transport = None
                lost.append(each)
                if len(lost) == 2:
                    reactor.callLater(0, self.guarded(reactor, check))

            def check() -> None:
                port.stopListening()
                self.assertEqual(reactor.getReaders(), [])
                self.assertEqual(reactor.getWriters(), [])
                # A client and its connector refer to each other, in Twisted.
                gc.collect()
                self.assertEqual([each() for each in transports], [None, None])
                reactor.stop()

            transports: list[weakref.ref[Any]] = []

            def made(each: Recorder) -> None:
                transports.append(weakref.ref(each.transport))
                if each is client:
                    each.transport.loseConnection()

            server, client = Recorder(), Recorder()
            for each in (server, client):
                each.onMade, each.onLost = made, over
            port = pair(reactor, server, client)

        self.each(body)


if __name__ == "__main__":
    main()
