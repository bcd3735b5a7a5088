#!/usr/bin/env python3
"""examples/chat.rs on Twisted: the same program, line for line where that is possible. Argument:
where to listen (tcp:6000)."""

import sys

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin


class Talker(LineOnlyReceiver, TimeoutMixin):
    delimiter = b"\n"
    MAX_LENGTH = 1024
    name = None

    def connectionMade(self):
        self.factory.room.append(self)
        self.transport.bufferSize = 1024 * 1024
        self.transport.registerProducer(self, streaming=True)
        self.sendLine(b"what is your name?")
        self.setTimeout(600)

    def pauseProducing(self):
        self.transport.abortConnection()

    def resumeProducing(self):
        pass

    stopProducing = resumeProducing

    def dataReceived(self, data):
        self.resetTimeout()
        super().dataReceived(data)

    def tellAll(self, line):
        for talker in self.factory.room:
            talker.sendLine(line.encode())

    def lineReceived(self, line):
        line = line.decode(errors="replace").strip()
        if self.name is not None:
            self.tellAll(f"<{self.name}> {line}")
        elif not line or any(talker.name == line for talker in self.factory.room):
            self.sendLine(b"choose another name")
        else:
            self.name = line
            self.tellAll(f"* {line} is here")

    def connectionLost(self, reason):
        self.setTimeout(None)
        self.factory.room.remove(self)
        if self.name is not None:
            self.tellAll(f"* {self.name} has left")


async def main(reactor, description="tcp:6000"):
    factory = Factory.forProtocol(Talker)
    factory.room = []
    port = await serverFromString(reactor, description).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


task.react(lambda reactor, *args: Deferred.fromCoroutine(main(reactor, *args)), sys.argv[1:])
