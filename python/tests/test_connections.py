"""
Connections on the engine: the parts of Twisted's interface that its own tests leave open.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from unittest import main

from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from twisted.internet import address, error, interfaces, protocol, tcp
from twisted.python import components, log

from ropewalk import _tcp
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


class Accepted(ReactorCase):
    """
    Connections that a port has accepted natively.
    """

    def test_the_attributes_are_those_of_twisted(self) -> None:
        """Beside the native ones, a connection has what Twisted's constructors give it."""

        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def made(_: Recorder) -> None:
                ours = server.transport
                listener = socket.create_server(("127.0.0.1", 0))
                peer = socket.create_connection(listener.getsockname())
                accepted, _ = listener.accept()
                for each in (listener, peer, accepted):
                    self.addCleanup(each.close)
                theirs = tcp.Server(accepted, server, ours.client, ours.server, ours.sessionno, reactor)
                reactor.removeReader(theirs)
                native = {"socket", "fileno", "repstr"}
                for name, value in vars(theirs).items():
                    self.assertTrue(hasattr(ours, name), name)
                    if name not in native:
                        self.assertEqual(getattr(ours, name), value, name)
                self.assertEqual(set(vars(ours)) - set(vars(theirs)), {"_represented"})
                self.assertEqual(repr(ours), repr(theirs))
                self.assertEqual(ours.logPrefix(), theirs.logPrefix())
                for option in ("family", "type", "proto"):
                    self.assertEqual(getattr(ours.socket, option), getattr(theirs.socket, option))
                reactor.stop()

            client.onMade = self.guarded(reactor, made)
            pair(reactor, server, client)

        self.each(body)

    def test_the_socket_object_is_made_on_demand(self) -> None:
        """It stays the same, closing it closes nothing, and it is gone with the connection."""

        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()
            kept: list[Any] = []

            def made(each: Recorder) -> None:
                transport = each.transport
                self.assertGreater(transport.fileno(), 2)
                kept.append(transport.getHandle())
                self.assertIs(transport.socket, kept[0])
                self.assertEqual(kept[0].fileno(), transport.fileno())
                self.assertEqual(kept[0].getpeername(), transport.client)
                host = transport.getHost()
                self.assertEqual(host, address.IPv4Address("TCP", *kept[0].getsockname()))
                self.assertIsNot(transport.getHost(), host, "a program may change its own")
                kept[0].close()
                self.assertEqual(transport.fileno(), -1)

            def lost(each: Recorder) -> None:
                self.assertEqual(each.received, b"hello")
                self.assertEqual(each.transport.fileno(), -1)
                self.assertEqual(kept[0].fileno(), -1)
                for name in ("socket", "protocol"):
                    with self.assertRaisesRegex(AttributeError, f"'Server' object has no attribute '{name}'"):
                        getattr(each.transport, name)
                self.assertRaises(AttributeError, each.transport.getHost)
                self.assertEqual(each.transport.getPeer().port, each.transport.client[1])
                reactor.stop()

            server.onMade, server.onLost = self.guarded(reactor, made), self.guarded(reactor, lost)
            client.onMade = lambda each: (each.transport.write(b"hello"), each.transport.loseConnection())
            pair(reactor, server, client)

        self.each(body)

    def test_a_socket_object_that_is_asked_for_behind_an_abort_is_closed(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def made(each: Recorder) -> None:
                each.transport.abortConnection()
                # The engine resets the connection in this turn. Twisted tells it in the next.
                reactor.callLater(0, look, each)

            def look(each: Recorder) -> None:
                if each.reason is None:
                    self.assertEqual(each.transport.socket.fileno(), each.transport.fileno())

            def lost(each: Recorder) -> None:
                self.assertTrue(each.reason.check(error.ConnectionAborted), each.reason)
                self.assertFalse(hasattr(each.transport, "socket"))
                reactor.stop()

            server.onMade, server.onLost = self.guarded(reactor, made), self.guarded(reactor, lost)
            pair(reactor, server, client)

        self.each(body)

    def test_another_class_of_transports_gets_a_socket_object(self) -> None:
        """As C{socket.accept} makes it: it blocks."""

        def body(reactor: RopewalkReactor) -> None:
            class Transport(_tcp.Server):
                def __init__(self, sock: Any, *rest: Any) -> None:
                    seen.append((type(sock), sock.gettimeout(), os.get_blocking(sock.fileno())))
                    super().__init__(sock, *rest)

            server, client, seen = Recorder(), Recorder(), []

            def received(each: Recorder) -> None:
                self.assertEqual(seen, [(socket.socket, None, True)])
                self.assertIs(type(each.transport), Transport)
                reactor.stop()

            server.onData = self.guarded(reactor, received)
            client.onMade = lambda each: each.transport.write(b"hello")
            pair(reactor, server, client).transport = Transport

        self.each(body)

    def test_a_peer_of_ipv4_on_a_port_of_ipv6_has_its_mapped_address(self) -> None:
        """As in Twisted: both ends are addresses of IPv6."""
        try:
            socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True).close()
        except OSError as refused:
            self.skipTest(f"no IPv6: {refused}")

        def body(reactor: RopewalkReactor) -> None:
            server, client = Recorder(), Recorder()

            def made(each: Recorder) -> None:
                name = each.transport.getHandle().getpeername()
                self.assertEqual(each.transport.client, name)
                self.assertEqual(each.transport.getPeer(), address.IPv6Address("TCP", *name))
                self.assertEqual(name[0], "::ffff:127.0.0.1")
                self.assertEqual(each.transport.getHost(), address.IPv6Address("TCP", *each.transport.socket.getsockname()))
                reactor.stop()

            server.onMade = self.guarded(reactor, made)
            port = reactor.listenTCP(0, protocol.Factory.forProtocol(lambda: server), interface="::")
            reactor.connectTCP("127.0.0.1", port.getHost().port, protocol.ClientFactory.forProtocol(lambda: client))

        self.each(body)

    def test_every_way_to_half_close_is_found(self) -> None:
        """By the class, by the instance, by C{__conform__}, and by an adapter of the program."""

        told: list[Any] = []

        def end(recorder: Recorder) -> None:
            told.append(recorder)
            recorder.transport.loseConnection()

        class Half:
            def __init__(self, recorder: Recorder) -> None:
                self.readConnectionLost = lambda: end(recorder)

        class Adapted(Recorder):
            pass

        class Conforming(Recorder):
            def __conform__(self, interface: Any) -> Any:
                return Half(self) if interface is interfaces.IHalfCloseableProtocol else None

        @implementer(interfaces.IHalfCloseableProtocol)
        class Declared(Recorder):
            readConnectionLost = end

        class Marked(Recorder):
            readConnectionLost = end

            def __init__(self) -> None:
                super().__init__()
                directlyProvides(self, interfaces.IHalfCloseableProtocol)

        components.registerAdapter(Half, Adapted, interfaces.IHalfCloseableProtocol)
        for kind in (Recorder, Adapted, Conforming, Declared, Marked):

            def body(reactor: RopewalkReactor) -> None:
                server, client = kind(), Recorder()

                def lost(each: Recorder) -> None:
                    self.assertEqual(told, [] if kind is Recorder else [each])
                    self.assertTrue(each.reason.check(error.ConnectionDone))
                    reactor.stop()

                told.clear()
                server.onLost = self.guarded(reactor, lost)
                client.onMade = lambda each: each.transport.loseWriteConnection()
                pair(reactor, server, client)

            with self.subTest(kind=kind.__name__):
                self.each(body)

    def test_a_failing_log_prefix_is_logged(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            server, client, events = Recorder(), Recorder(), []

            def made(each: Recorder) -> None:
                each.transport.logPrefix = lambda: 1 / 0

            def received(each: Recorder) -> None:
                log.msg("a line")
                log.removeObserver(events.append)
                systems = [event["system"] for event in events if event["message"] == ("a line",)]
                self.assertEqual(systems, ["(buggy logPrefix method)"])
                failures = [event["failure"] for event in events if event["isError"]]
                self.assertTrue(failures[0].check(ZeroDivisionError), failures)
                reactor.stop()

            log.addObserver(events.append)
            server.onMade, server.onData = made, self.guarded(reactor, received)
            client.onMade = lambda each: each.transport.write(b"hello")
            pair(reactor, server, client)

        self.each(body)


if __name__ == "__main__":
    main()
