"""
The echo client of the tutorial, ten times: C{echo_client.py PORT}. Each sends a line, prints the
answer, and closes.
"""

import sys

from twisted.internet import defer, protocol, reactor, task
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol


class Greeter(protocol.Protocol):
    def __init__(self, number):
        self.greeting = b"hello from %d" % number
        self.answer = b""
        self.done = defer.Deferred()

    def connectionMade(self):
        self.transport.write(self.greeting)

    def dataReceived(self, data):
        self.answer += data
        if len(self.answer) == len(self.greeting):
            self.transport.loseConnection()

    def connectionLost(self, reason):
        self.done.callback(self.answer.decode())


async def main(clock):
    endpoint = TCP4ClientEndpoint(clock, "127.0.0.1", int(sys.argv[1]))
    greeters = [await connectProtocol(endpoint, Greeter(number)) for number in range(10)]
    for greeter in greeters:
        print(await greeter.done)
    print(type(reactor).__name__)


task.react(lambda clock: defer.ensureDeferred(main(clock)))
