"""
An echo server as a service, for C{twist} and C{twistd}. It writes its port, its process and its
reactor to the file $PORT_FILE.
"""

import os

from twisted.application import service
from twisted.internet import protocol, reactor
from twisted.python.usage import Options

__all__ = ["Options", "Server", "makeService"]


class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class Server(service.Service):
    def startService(self):
        port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
        with open(os.environ["PORT_FILE"], "w") as file:
            file.write(f"{port.getHost().port} {os.getpid()} {type(reactor).__name__}")


def makeService(options):
    return Server()
