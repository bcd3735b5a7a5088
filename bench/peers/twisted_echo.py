"""An echo server on Twisted's epoll reactor. Prints `ready PORT`, and runs until its parent ends
it."""

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import protocol, reactor  # noqa: E402


class Echo(protocol.Protocol):
    def connectionMade(self):
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data):
        self.transport.write(data)


port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), backlog=4096, interface="127.0.0.1")
print("ready", port.getHost().port, flush=True)
reactor.run(installSignalHandlers=False)
