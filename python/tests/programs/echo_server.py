"""
The echo server of the tutorial. It prints its port, and the lines that it serves.
"""

from twisted.internet import protocol, reactor
from twisted.internet.endpoints import serverFromString


class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


def listening(port):
    print(port.getHost().port, type(reactor).__name__, flush=True)


serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(protocol.Factory.forProtocol(Echo)).addCallback(listening)
reactor.run()
