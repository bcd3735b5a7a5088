"""
TCP connections on the engine: Twisted's own classes, with L{Conn<ropewalk._native.Conn>} before
them.

Accepting and connecting are Twisted's, on watched descriptors. As soon as a connection is there,
the engine adopts its socket: it reads, writes and closes. So C{doRead} and C{doWrite} are never
called for it. Everything else is inherited: attributes, addresses, options, TLS, log prefixes.
"""

from __future__ import annotations

import socket
from typing import Any, Optional

from twisted.internet import abstract, main, tcp
from twisted.python import context, failure, log

from ropewalk._native import Conn

try:
    from twisted.internet._newtls import startTLS
except ImportError:  # pyOpenSSL is not there, so no connection has a `startTLS`.
    startTLS = None

_REASONS = {
    "done": main.CONNECTION_DONE,
    "lost": main.CONNECTION_LOST,
}


class EngineSocket(socket.socket):
    """
    The socket object of a connection (C{transport.getHandle()}), for its options and addresses.

    The descriptor is the engine's. This object never closes it: not by C{close}, and not when it is
    collected, when the number may belong to another connection.
    """

    __slots__ = ()

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

    def startReading(self) -> None:
        if not self._read() and self._isConnecting:
            self.reactor.addReader(self)

    def stopReading(self) -> None:
        if not self._pause() and self._isConnecting:
            self.reactor.removeReader(self)

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.startReading()

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

    def _retire(self) -> None:
        """
        Take the number away from the socket object. The engine has closed the descriptor.
        """
        self.socket.detach()

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

    def _readEnded(self) -> None:
        self.reactor._disconnectSelectable(self, main.CONNECTION_DONE, True)

    def _over(self, reason: str) -> None:
        self.reactor._disconnectSelectable(self, _REASONS[reason], False)

    def _failed(self, exception: BaseException) -> None:
        log.err(failure.Failure(exception, type(exception), exception.__traceback__))
        self.reactor._disconnectSelectable(self, exception, False)

    def _logContext(self) -> dict[Any, Any]:
        """
        Return the context in which this connection's callbacks log, as C{log.callWithLogger} has
        it.
        """
        try:
            prefix = self.logPrefix()
        except Exception:
            prefix = "(buggy logPrefix method)"
            log.err(system=prefix)
        return {log.ILogContext: {**(context.get(log.ILogContext) or {}), "system": prefix}}


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

    def __init__(self, sock: socket.socket, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any) -> None:
        tcp.Server.__init__(self, sock, protocol, client, server, sessionno, reactor)
        self._adopt(client)


class Client(_Connection, tcp.Client):
    """
    A connection to a server. Up to the moment when it is established, its descriptor is watched.
    """

    _isConnecting = True

    def _connectDone(self) -> None:
        self._isConnecting = False
        self._adopt(self.realAddress)
        super()._connectDone()


class Port(tcp.Port):
    """
    A listening port.
    """

    transport = Server


class Connector(tcp.Connector):
    """
    Connects, again and again if its factory says so.
    """

    def _makeTransport(self) -> Client:
        return Client(self.host, self.port, self.bindAddress, self, self.reactor)
