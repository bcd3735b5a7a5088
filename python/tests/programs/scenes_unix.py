"""
Scenes over UNIX sockets, played as those of C{scenarios.py}.
"""

import os
import tempfile

from scenarios import NAME, HalfTalker, Talker, interfaces, play, protocol, reactor, say, wrap
from zope.interface import implementer

# A relative path, because the log shows it.
FOLDER = tempfile.TemporaryDirectory()
os.chdir(FOLDER.name)
PATH = "scene.sock"


def connect(server, client):
    """
    Connect two protocols. When both are lost, the reactor stops.
    """
    left = {server, client}
    for each in (server, client):
        each.connectionLost = wrap(each, each.connectionLost, left)
    accepting = protocol.Factory()
    accepting.buildProtocol = lambda address: server
    connecting = protocol.ClientFactory()
    connecting.buildProtocol = lambda address: client
    reactor.listenUNIX(PATH, accepting)
    reactor.connectUNIX(PATH, connecting)


def pipe(text):
    """
    Return the read end of a pipe that has a text in it.
    """
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    return reader


@implementer(interfaces.IFileDescriptorReceiver)
class Receiver(Talker):
    """
    Says what the received pipes have in them, and how many bytes came in all.
    """

    count = 0

    def fileDescriptorReceived(self, descriptor):
        say(self.name, "descriptor", os.read(descriptor, 100))
        os.close(descriptor)

    def dataReceived(self, data):
        self.count += len(data)

    def connectionLost(self, reason):
        say(self.name, "count", self.count)
        super().connectionLost(reason)


def unix_closing():
    class Server(Talker):
        def connectionMade(self):
            super().connectionMade()
            transport = self.transport
            say("server", transport.getHost().name == PATH.encode(), transport.getPeer().name)
            say("server", interfaces.IUNIXTransport.providedBy(transport), transport.getTcpNoDelay())
            transport.write(b"one ")
            transport.writeSequence([b"two ", b"three"])
            transport.loseConnection()
            transport.write(b"four")

        def connectionLost(self, reason):
            super().connectionLost(reason)
            say("server", hasattr(self.transport, "socket"))

    class Client(Talker):
        received = b""

        def connectionMade(self):
            super().connectionMade()
            say("client", self.transport.getHost().name, self.transport.getPeer().name == PATH.encode())

        def dataReceived(self, data):
            self.received += data

        def connectionLost(self, reason):
            say("client", self.received)
            super().connectionLost(reason)

    connect(Server("server"), Client("client"))


def unix_half_closes():
    class Server(HalfTalker):
        def readConnectionLost(self):
            super().readConnectionLost()
            self.transport.write(b"last words")
            self.transport.loseConnection()

    class Client(HalfTalker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.write(b"hello")
            self.transport.loseWriteConnection()

        def readConnectionLost(self):
            super().readConnectionLost()
            self.transport.loseConnection()

    connect(Server("server"), Client("client"))


def unix_aborting():
    class Server(Talker):
        def dataReceived(self, data):
            super().dataReceived(data)
            self.transport.write(b"never sent")
            self.transport.abortConnection()

    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.write(b"hello")

    connect(Server("server"), Client("client"))


def unix_failing():
    class Failing(Talker):
        def dataReceived(self, data):
            raise RuntimeError("in dataReceived")

    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.write(b"hello")

    connect(Failing("server"), Client("client"))


def unix_descriptors():
    """
    A descriptor leaves with bytes written ahead of it, behind it, and behind a large write.
    """

    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            transport = self.transport
            transport.write(b"ab")
            transport.sendFileDescriptor(pipe(b"first"))
            transport.sendFileDescriptor(pipe(b"second"))
            transport.sendFileDescriptor(pipe(b"third"))
            transport.write(b"c")
            reactor.callLater(0.1, self.more)

        def more(self):
            self.transport.write(b"x" * 100_000)
            self.transport.sendFileDescriptor(pipe(b"fourth"))
            reactor.callLater(0.1, self.last)

        def last(self):
            self.transport.sendFileDescriptor(pipe(b"fifth"))
            self.transport.loseConnection()
            self.transport.write(b"d")

    connect(Receiver("server"), Client("client"))


def unix_descriptor_unwanted():
    """
    A protocol that takes no descriptors: they are closed, and the log has a line.
    """

    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            reader, writer = os.pipe()
            self.transport.sendFileDescriptor(writer)
            self.transport.write(b"x")
            reactor.callLater(0.1, self.look, reader, writer)

        def look(self, reader, writer):
            os.close(writer)
            # Empty, because no process has the other end.
            say("client", os.read(reader, 1))
            self.transport.loseConnection()

    connect(Talker("server"), Client("client"))


def unix_overrun():
    """
    A descriptor without bytes ends the connection.
    """

    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.sendFileDescriptor(pipe(b"never"))

    connect(Receiver("server"), Client("client"))


def unix_overrun_closing():
    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.sendFileDescriptor(pipe(b"never"))
            self.transport.loseConnection()

    connect(Receiver("server"), Client("client"))


def unix_bad_descriptor():
    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.sendFileDescriptor(0x7FFFFFFF)
            self.transport.write(b"x")

    connect(Receiver("server"), Client("client"))


if __name__ == "__main__":
    play(globals()[NAME])
