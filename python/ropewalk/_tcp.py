"""
TCP connections on the engine: Twisted's own classes, with L{Conn<ropewalk._native.Conn>} before
them.

Listening and connecting are Twisted's, on watched descriptors. As soon as a connection is there,
the engine adopts its socket: it reads, writes and closes. So C{doRead} and C{doWrite} are never
called for it. Everything else is inherited: attributes, addresses, options, TLS, log prefixes.

A L{Port} accepts natively. A L{Server} of such a socket has the attributes that Twisted's
constructors give it, and makes its socket object when the program asks for it.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Optional, Union

from zope.interface import interface, providedBy

from twisted.internet import abstract, address, error, main, posixbase, tcp
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python import components, failure, log

from ropewalk._native import Accepted, Conn, Listener

try:
    from twisted.internet._newtls import startTLS
except ImportError:  # pyOpenSSL is not there, so no connection has a `startTLS`.
    startTLS = None

# The failures with which Twisted's reactors end their connections: a default of a method.
(_FAILURES,) = posixbase._DisconnectSelectableMixin._disconnectSelectable.__defaults__

# Adapters of the program for protocols, as Twisted's own hook finds them.
_adapterOf = components.getRegistry().lookup1
_HOOKS = list(interface.adapter_hooks)


def _isPlain(protocol: Any) -> bool:
    """
    Check that C{IHalfCloseableProtocol(protocol, None)} is L{None}, without the many steps of an
    adaptation. L{False} says nothing.
    """
    if getattr(protocol, "__conform__", None) is not None or len(_HOOKS) != 1 or interface.adapter_hooks != _HOOKS:
        return False
    provided = providedBy(protocol)
    return not provided.isOrExtends(IHalfCloseableProtocol) and _adapterOf(provided, IHalfCloseableProtocol) is None


class EngineSocket(socket.socket):
    """
    The socket object of a connection (C{transport.getHandle()}), for its options and addresses.

    The descriptor is the engine's. This object never closes it: not by C{close}, and not when it is
    collected, when the number may belong to another connection.
    """

    __slots__ = ()

    def __init__(self, family: int, kind: int, proto: int, fileno: Optional[int] = None) -> None:
        # The object is nonblocking, as Twisted's is. The mode of the descriptor is the engine's.
        super().__init__(family, kind | socket.SOCK_NONBLOCK, proto, fileno)

    def dup(self) -> socket.socket:
        """
        Duplicate the descriptor, for a socket object of the program's.
        """
        duplicate = socket.socket(self.family, self.type, self.proto, os.dup(self.fileno()))
        duplicate.setblocking(False)
        return duplicate

    def _real_close(self, *args: Any) -> None:
        self.detach()

    def __del__(self) -> None:
        self.detach()


class _Connection(Conn):
    """
    The Python half of a connection, for what happens seldom.
    """

    _isConnecting = False
    _engineSocket = EngineSocket

    # For the native half.
    _done = _FAILURES[error.ConnectionDone]
    _lost = _FAILURES[error.ConnectionLost]
    _aborted = error.ConnectionAborted

    def _adopt(self, peer: Optional[tuple[Any, ...]]) -> None:
        """
        Let the engine take over the connected socket.

        @param peer: the address of the other end, as the socket module has it. L{None} for a UNIX
            socket.
        """
        skt = self.socket
        family, kind, proto = skt.family, skt.type, skt.proto
        fd = self._takeOver(self.reactor._engine, skt, peer and (peer[0], peer[1]))
        self.socket = self._engineSocket(family, kind, proto, fd)
        self.fileno = self.socket.fileno

    # Reading

    def stopReading(self) -> None:
        if not self._pause() and self._isConnecting:
            self.reactor.removeReader(self)

    def pauseProducing(self) -> None:
        self.stopReading()

    # Writing. The engine writes by itself, once it has the socket.

    def startWriting(self) -> None:
        if self._isConnecting:
            self.reactor.addWriter(self)

    def stopWriting(self) -> None:
        if self._isConnecting:
            self.reactor.removeWriter(self)

    # Closing

    def loseConnection(self, *args: Any, **kwargs: Any) -> None:
        if not self.TLS:
            self._loseConnection()
        elif self.connected and not self.disconnecting:
            self.protocol.loseConnection()

    def _loseConnection(self) -> None:
        if not self.connected or self.disconnecting:
            return
        if self._writeDisconnected:
            # The queue is gone, so there is nothing to wait for.
            self.connectionLost(failure.Failure(main.CONNECTION_DONE))
        else:
            self.disconnecting = 1
            self._lose()

    def loseWriteConnection(self) -> None:
        self._writeDisconnecting = True
        self._loseWrite()

    def abortConnection(self) -> None:
        if self.disconnected or self._aborting:
            return
        # The engine drops the queue and resets the connection. The loss is told as in Twisted.
        self._abort()
        super().abortConnection()

    def _closeSocket(self, orderly: bool) -> None:
        """
        Close the socket at once: in order, or with a reset.
        """
        if self._isAdopted:
            self._discard(not orderly)
            self._retire()
        else:
            super()._closeSocket(orderly)

    def readConnectionLost(self, reason: failure.Failure) -> None:
        if _isPlain(self.protocol):
            self.connectionLost(reason)
        else:
            super().readConnectionLost(reason)

    # Producers

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.TLS:
            self.protocol.registerProducer(producer, streaming)
        else:
            self._registerProducer(producer, streaming)

    def _registerProducer(self, producer: Any, streaming: bool) -> None:
        abstract.FileDescriptor.registerProducer(self, producer, streaming)
        if self.producer is None:
            # It is over already: the connection's end, or the producer's.
            return
        self._watchQueue(bool(self.streamingProducer))
        if not self.streamingProducer:
            self._awaitDrain()

    def unregisterProducer(self) -> None:
        if self.TLS:
            self.protocol.unregisterProducer()
        else:
            self._unregisterProducer()

    def _unregisterProducer(self) -> None:
        abstract.FileDescriptor.unregisterProducer(self)
        self._watchQueue(False)
        self._forgetDrain()

    def _isSendBufferFull(self) -> bool:
        return self._queued() > self.bufferSize

    def _maybePauseProducer(self) -> None:
        """
        Pause a streaming producer if too much is queued. L{Conn} calls this behind each write.
        """
        super()._maybePauseProducer()
        if self.producer is not None and self.producerPaused:
            self._awaitDrain()

    def _drained(self) -> None:
        """
        Ask the producer for more. L{Conn} calls this when the queue is empty.
        """
        if self.producer is None or not (self.producerPaused or not self.streamingProducer):
            return
        if self.streamingProducer:
            # Until it is paused again, it does not hold a close.
            self._forgetDrain()
        self.producerPaused = False
        self.producer.resumeProducing()

    # TLS

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """
        Start TLS, as L{ITLSTransport<twisted.internet.interfaces.ITLSTransport>} says.
        """
        startTLS(self, ctx, normal, _BelowTLS)

    # The engine's events. `Conn` calls these in the connection's log context, and hands an
    # exception to `_failed`.

    def _failed(self, exception: BaseException) -> None:
        log.err(failure.Failure(exception, type(exception), exception.__traceback__))
        self.reactor._disconnectSelectable(self, exception, False)

    def _prefixFailed(self, exception: Exception) -> str:
        """
        Log the exception of C{logPrefix}, and return the prefix that C{log.callWithLogger} has
        then.
        """
        prefix = "(buggy logPrefix method)"
        log.err(failure.Failure(exception, type(exception), exception.__traceback__), system=prefix)
        return prefix


class _BelowTLS:
    """
    The methods with which TLS reaches the connection below it. TLS calls them through the class.
    """

    write = Conn._write
    writeSequence = Conn._writeSequence

    def loseConnection(connection: _Connection) -> None:
        connection._loseConnection()

    def registerProducer(connection: _Connection, producer: Any, streaming: bool) -> None:
        connection._registerProducer(producer, streaming)

    def unregisterProducer(connection: _Connection) -> None:
        connection._unregisterProducer()


class Server(_Connection, tcp.Server):
    """
    A connection that a port has accepted.
    """

    # The name of the socket, once the program has asked for it.
    _name: Optional[tuple[Any, ...]] = None

    def __init__(
        self,
        sock: Union[Accepted, socket.socket],
        protocol: Any,
        client: Any,
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        if type(sock) is not Accepted:
            tcp.Server.__init__(self, sock, protocol, client, server, sessionno, reactor)
            self._adopt(client)
            return
        # The attributes that the constructors of Twisted's classes set.
        self.reactor = reactor
        self._tempDataBuffer: list[bytes] = []
        self._tempDataLen = 0
        self.protocol = protocol
        if len(client) != 2:
            self._addressType = address.IPv6Address
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self.hostname = client[0]
        self.logstr = f"{self._getLogPrefix(protocol)},{sessionno},{self.hostname}"
        self._represented = protocol.__class__.__name__, sessionno, server._realPortNumber
        self._takeAccepted(reactor._engine, sock)
        self.connected = 1

    def _makeSocket(self, fd: int) -> EngineSocket:
        """
        Make the socket object of an accepted connection. L{Conn} calls this the first time that
        the program asks for it.

        @param fd: the descriptor. If it is closed already, it is -1.
        """
        family = socket.AF_INET if len(self.client) == 2 else socket.AF_INET6
        if fd >= 0:
            return EngineSocket(family, socket.SOCK_STREAM, 0, fd)
        closed = EngineSocket(family, socket.SOCK_STREAM, 0)
        os.close(closed.detach())
        return closed

    @property
    def repstr(self) -> str:
        """
        The text of C{repr}.
        """
        if type(self._represented) is str:
            return self._represented
        return "<{} #{} on {}>".format(*self._represented)

    @repstr.setter
    def repstr(self, text: str) -> None:
        self._represented = text

    def getHost(self) -> Union[address.IPv4Address, address.IPv6Address]:
        # A connected socket keeps its name. Once it is closed, asking for it raises.
        if self._name is None or self.disconnected:
            self._name = tcp._getsockname(self.socket)
        return self._addressType("TCP", *self._name)


class Client(_Connection, tcp.Client):
    """
    A connection to a server. Up to the moment when it is established, its descriptor is watched.
    """

    _isConnecting = True
    # It also ends a connection that is not established.
    connectionLost = tcp.Client.connectionLost

    def _connectDone(self) -> None:
        self._isConnecting = False
        self._adopt(self.realAddress)
        super()._connectDone()


class Port(tcp.Port):
    """
    A listening port.
    """

    transport = Server

    def doRead(self) -> None:
        """
        Accept the connections that wait.
        """
        skt = self.socket
        if type(skt) is not socket.socket or skt.proto:
            # It accepts in a way of its own.
            super().doRead()
            return
        try:
            with tcp._BuffersLogs(self._logger.namespace, self._logger.observer) as logger:
                accepted = 0
                listener = Listener(self.reactor._engine, skt.fileno(), self.addressFamily == socket.AF_INET6)
                clients = tcp._accept(logger, range(self.numberAccepts), listener, tcp._reservedFD)
                for accepted, (client, peer) in enumerate(clients, 1):
                    self._accepted(client, peer)
            # The next call takes as many as came in this one. If all were taken, more may wait.
            if accepted == self.numberAccepts:
                self.numberAccepts += 20
            else:
                self.numberAccepts = max(1, accepted)
        except BaseException:
            log.deferr()

    def _accepted(self, client: Any, peer: tuple[Any, ...]) -> None:
        """
        Build a protocol for an accepted connection, and join the two.
        """
        if len(peer) == 4:
            # With the name of the scope.
            host, _ = socket.getnameinfo(peer, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
            peer = (host, *peer[1:])
        protocol = self.factory.buildProtocol(self._buildAddr(peer))
        if protocol is None:
            client.close()
            return
        number = self.sessionno
        self.sessionno = number + 1
        if self.transport is not Server:
            # A class of the program's expects a socket object, as `socket.accept` makes it.
            client = socket.socket(self.addressFamily, self.socketType, 0, client.detach())
            client.setblocking(True)
        protocol.makeConnection(self.transport(client, protocol, peer, self, number, self.reactor))


class Connector(tcp.Connector):
    """
    Connects, again and again if its factory says so.
    """

    def _makeTransport(self) -> Client:
        return Client(self.host, self.port, self.bindAddress, self, self.reactor)
