"""
UNIX stream connections on the engine: Twisted's own classes, with L{Conn<ropewalk._native.Conn>}
before them, as in L{ropewalk._tcp}.

C{sendFileDescriptor} gives the engine a duplicate, which leaves with the first queued byte that has
no descriptor. If there is none, the descriptor waits for a byte that the program writes next:

  - in the next turn, with nothing queued, the connection is lost with
    L{FileDescriptorOverrun<twisted.internet.error.FileDescriptorOverrun>}, as in Twisted;
  - while the peer does not read, it goes on to wait.
"""

from __future__ import annotations

import socket
import struct
import weakref
from typing import Any, Optional

from twisted.internet import address, error, main, unix
from twisted.python import log

from ropewalk._tcp import EngineSocket, _Connection


class _UNIXSocket(EngineSocket):
    """
    The socket object of a UNIX connection. If the program closes it, the engine closes the
    descriptor, and the protocol is told nothing, as in Twisted: a program does so when it has
    adopted a duplicate. The end of that one would not reach the peer otherwise.
    """

    __slots__ = ("_connection",)

    def _real_close(self, *args: Any) -> None:
        super()._real_close(*args)
        connection = self._connection()
        if connection is not None:
            connection._discard(False)


class _UNIXConnection(_Connection):
    """
    The Python half of a connection over a UNIX socket.
    """

    _engineSocket = _UNIXSocket

    # Number of descriptors that the engine was given since its queue was empty.
    _attached = 0
    _willCheck = False

    def _adopt(self, peer: Optional[tuple[Any, ...]]) -> None:
        super()._adopt(peer)
        self.socket._connection = weakref.ref(self)

    # Descriptors

    def sendFileDescriptor(self, fileno: int) -> None:
        """
        Send a descriptor: see L{IUNIXTransport<twisted.internet.interfaces.IUNIXTransport>}.
        """
        if not self.connected:
            return
        self._sendmsgQueue.append(fileno)
        self._maybePauseProducer()
        if self._sendmsgQueue:
            # Each write calls `_maybePauseProducer` from now on.
            self._watchQueue(True)
            self._checkSoon()

    def _attach(self) -> None:
        """
        Give the engine the descriptors for which bytes are queued.
        """
        if not self._queued():
            self._attached = 0
        queue = self._sendmsgQueue
        while queue:
            try:
                if not self._sendDescriptor(queue[0]):
                    return
            except OSError:
                queue.clear()
                self.reactor._engine.call_soon(lambda: self._loseDescriptors(main.CONNECTION_LOST))
                return
            del queue[0]
            self._attached += 1

    def _checkSoon(self) -> None:
        """
        Look in the next turn if all descriptors have found their bytes.
        """
        if not self._willCheck:
            self._willCheck = True
            self.reactor._engine.call_soon(self._check)

    def _check(self) -> None:
        self._willCheck = False
        if not self.connected:
            return
        self._attach()
        if self._sendmsgQueue:
            if self.disconnecting or not self._queued():
                self._loseDescriptors(error.FileDescriptorOverrun())
        elif self.disconnecting:
            self._lose()

    def _loseDescriptors(self, why: Exception) -> None:
        if self.connected:
            log.callWithLogger(self, self.reactor._disconnectSelectable, self, why, False)

    def _descriptorReceived(self, descriptor: int) -> None:
        """
        Hand a descriptor to the protocol. L{Conn} calls this before the bytes that it came with.
        """
        self._ancillaryLevelSOLSOCKETTypeSCMRIGHTS(struct.pack("i", descriptor))

    def _isSendBufferFull(self) -> bool:
        queued = self._queued()
        # Each has a byte of its own, so no more can wait than there are bytes.
        descriptors = len(self._sendmsgQueue) + min(self._attached, queued)
        return descriptors > self._fileDescriptorBufferSize or queued > self.bufferSize

    def _maybePauseProducer(self) -> None:
        if self._sendmsgQueue:
            self._attach()
            self._watchQueue(bool(self._sendmsgQueue or (self.producer is not None and self.streamingProducer)))
        super()._maybePauseProducer()

    # Requests that a waiting descriptor changes

    def _loseConnection(self) -> None:
        if self._sendmsgQueue and self.connected and not self.disconnecting and not self._writeDisconnected:
            # The program may still write the bytes.
            self.disconnecting = 1
            self._checkSoon()
        else:
            super()._loseConnection()

    def _registerProducer(self, producer: Any, streaming: bool) -> None:
        super()._registerProducer(producer, streaming)
        if self._sendmsgQueue:
            self._watchQueue(True)

    def _unregisterProducer(self) -> None:
        super()._unregisterProducer()
        if self._sendmsgQueue:
            self._watchQueue(True)


class Server(_UNIXConnection, unix.Server):
    """
    A connection that a port has accepted.
    """

    def __init__(self, sock: socket.socket, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any) -> None:
        unix.Server.__init__(self, sock, protocol, client, server, sessionno, reactor)
        self._adopt(None)

    @classmethod
    def _fromConnectedSocket(cls, fileDescriptor: int, factory: Any, reactor: Any) -> Optional[Server]:
        """
        Make a connection of a socket from elsewhere. Twisted's method asks its socket object for
        the name when the engine has the descriptor already.
        """
        sock = socket.fromfd(fileDescriptor, socket.AF_UNIX, socket.SOCK_STREAM)
        name, peer, sessionno = sock.getsockname(), sock.getpeername(), 0
        protocol = factory.buildProtocol(address.UNIXAddress(name))
        if protocol is None:
            sock.close()
            return None
        self = cls(sock, protocol, peer, None, sessionno, reactor)
        kind = protocol.__class__.__name__
        self.repstr = f"<{kind} #{sessionno} on {name}>"
        self.logstr = f"{kind},{sessionno},{name}"
        protocol.makeConnection(self)
        return self


class Client(_UNIXConnection, unix.Client):
    """
    A connection to a server. Up to the moment when it is established, its descriptor is watched.
    """

    _isConnecting = True
    # It also ends a connection that is not established.
    connectionLost = unix.Client.connectionLost

    def _connectDone(self) -> None:
        self._isConnecting = False
        self._adopt(None)
        super()._connectDone()


class Port(unix.Port):
    """
    A listening port.
    """

    transport = Server


class Connector(unix.Connector):
    """
    Connects, again and again if its factory says so.
    """

    def _makeTransport(self) -> Client:
        return Client(self.address, self, self.reactor, self.checkPID)
