"""
Connections on the engine: the parts of Twisted's interface that its own tests leave open.
"""

from __future__ import annotations

import socket
from typing import Any
from unittest import main

from zope.interface.verify import verifyObject

from twisted.internet import error, interfaces, tcp

from ropewalk.reactor import RopewalkReactor
from ropewalk_test import ReactorCase, Recorder, pair


class Connections(ReactorCase):
    def test_a_transport_is_one_of_twisteds(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def made(each: Recorder) -> None:
                transport = each.transport
                self.assertIsInstance(transport, tcp.Server if each is server else tcp.Client)
                for interface in (interfaces.ITCPTransport, interfaces.ISystemHandle, interfaces.ITLSTransport):
                    self.assertTrue(verifyObject(interface, transport))
                self.assertIs(transport.protocol, each)
                self.assertTrue(transport._isAdopted)
                for no_delay in (True, False):
                    transport.setTcpNoDelay(no_delay)
                    self.assertEqual(transport.getTcpNoDelay(), no_delay)
                transport.setTcpKeepAlive(1)
                self.assertTrue(transport.getTcpKeepAlive())
                self.assertEqual(transport.getHandle().fileno(), transport.fileno())
                hosts.append((transport.getHost(), transport.getPeer()))
                if len(hosts) == 2:
                    self.assertEqual(hosts[0], hosts[1][::-1])
                    reactor.stop()

            hosts: list[Any] = []
            server.onMade = client.onMade = self.guarded(reactor, made)
            pair(reactor, server, client)

        self.each(body)

    def test_readers_and_writers_are_those_of_twisted(self) -> None:
        """A connection that is paused is no reader, and one whose queue waits is a writer."""

        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def made(_: Recorder) -> None:
                transport = server.transport
                client.transport.pauseProducing()
                self.assertIn(transport, reactor.getReaders())
                self.assertNotIn(transport, reactor.getWriters())
                transport.pauseProducing()
                self.assertNotIn(transport, reactor.getReaders())
                transport.write(b"x" * (64 << 20))
                self.assertIn(transport, reactor.getWriters())
                removed = reactor.removeAll()
                self.assertIn(transport, removed)
                self.assertNotIn(client.transport, removed, "it is paused")
                reactor.callLater(0, reactor.stop)

            client.onMade = self.guarded(reactor, made)
            pair(reactor, server, client)

        self.each(body)

    def test_a_connection_that_was_closed_by_disconnectAll(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def made(_: Recorder) -> None:
                reactor.disconnectAll()
                for each in (server, client):
                    self.assertTrue(each.reason.check(error.ConnectionLost), each.reason)
                    self.assertFalse(hasattr(each.transport, "socket"))
                reactor.stop()

            client.onMade = self.guarded(reactor, made)
            pair(reactor, server, client)

        self.each(body)

    def test_a_slow_reader_gets_every_byte_behind_a_close(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def made(each: Recorder) -> None:
                each.transport.write(b"x" * (8 << 20))
                each.transport.loseConnection()

            def received(each: Recorder) -> None:
                each.transport.pauseProducing()
                reactor.callLater(0.001, each.transport.resumeProducing)

            def lost(each: Recorder) -> None:
                self.assertEqual(len(each.received), 8 << 20)
                self.assertTrue(each.reason.check(error.ConnectionDone))
                reactor.stop()

            server.onMade, client.onData = made, received
            client.onLost = self.guarded(reactor, lost)
            pair(reactor, server, client)

        self.each(body)

    def test_a_protocol_may_be_exchanged(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            server, client, other = Recorder(), Recorder(), Recorder()

            def made(each: Recorder) -> None:
                each.transport.protocol = other
                other.makeConnection(each.transport)

            def received(_: Recorder) -> None:
                self.assertEqual((server.received, other.received), (b"", b"hello"))
                client.transport.loseConnection()

            def lost(_: Recorder) -> None:
                self.assertIsNone(server.reason)
                reactor.stop()

            server.onMade, other.onData = made, self.guarded(reactor, received)
            client.onMade = lambda each: each.transport.write(b"hello")
            other.onLost = self.guarded(reactor, lost)
            pair(reactor, server, client)

        self.each(body)

    def test_a_connected_socket_is_adopted(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            listener = socket.create_server(("127.0.0.1", 0))
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
            self.addCleanup(theirs.close)
            self.addCleanup(listener.close)
            recorder = Recorder()
            factory = type("Factory", (), {"buildProtocol": lambda self, address: recorder})()

            def received(each: Recorder) -> None:
                self.assertTrue(each.transport._isAdopted)
                self.assertEqual(each.received, b"hello")
                reactor.stop()

            recorder.onData = self.guarded(reactor, received)
            ours.setblocking(False)
            reactor.adoptStreamConnection(ours.fileno(), socket.AF_INET, factory)
            ours.close()
            theirs.sendall(b"hello")

        self.each(body)

    def test_a_connection_that_begins_inside_of_the_end_of_another(self) -> None:
        """It may take the place of the other one in the engine's table, and stays in it."""

        def body(reactor: RopewalkReactor) -> None:
            listener = socket.create_server(("127.0.0.1", 0))
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
            ours.setblocking(False)
            for each in (listener, ours, theirs):
                self.addCleanup(each.close)
            server, client, recorder = Recorder(), Recorder(), Recorder()
            factory = type("Factory", (), {"buildProtocol": lambda self, address: recorder})()

            class Producer:
                def pauseProducing(self) -> None:
                    pass

                resumeProducing = pauseProducing

                def stopProducing(self) -> None:
                    reactor.adoptStreamConnection(ours.fileno(), socket.AF_INET, factory)
                    reactor.callLater(0, theirs.sendall, b"hello")

            recorder.onData = self.guarded(reactor, lambda _: reactor.stop())
            server.onMade = lambda each: each.transport.registerProducer(Producer(), True)
            client.onMade = lambda each: each.transport.abortConnection()
            pair(reactor, server, client)

        self.each(body)

    def test_a_refused_connection_fails(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            from twisted.internet import protocol

            class Factory(protocol.ClientFactory):
                noisy = False

                def clientConnectionFailed(factory, connector: Any, reason: Any) -> None:
                    self.guarded(reactor, lambda: self.assertTrue(reason.check(error.ConnectionRefusedError)))()
                    reactor.stop()

            unused = socket.socket()
            self.addCleanup(unused.close)
            unused.bind(("127.0.0.1", 0))
            reactor.connectTCP("127.0.0.1", unused.getsockname()[1], Factory())

        self.each(body)


if __name__ == "__main__":
    main()
