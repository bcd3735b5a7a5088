#!/usr/bin/env python3
"""examples/files.rs on Twisted: the same program, line for line where that is possible. Arguments:
the folder, where to listen (tcp:7000), and the seconds after which a stalled peer is cut off.

It has no limit of the errors that are queued for a peer that does not read.
"""

import sys
from pathlib import Path

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger
from twisted.protocols.basic import FileSender, LineReceiver
from twisted.protocols.policies import LimitTotalConnectionsFactory, TimeoutMixin

IDLE_LIMIT = 60
FAREWELL = 10


class Part:
    """The next bytes of a file, so many of them."""

    def __init__(self, file, left):
        self.file, self.left = file, left

    def read(self, count):
        data = self.file.read(min(count, self.left))
        self.left -= len(data)
        return data


class Download(LineReceiver, TimeoutMixin):
    log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = 4096

    def connectionMade(self):
        self.factory.open.add(self)
        self.setTimeout(IDLE_LIMIT)

    def dataReceived(self, data):
        self.resetTimeout()
        return super().dataReceived(data)

    def timeoutConnection(self):
        self.transport.abortConnection()

    def openFile(self, line):
        """Opens the file of a request. Returns its bytes from the offset on."""
        match line.decode().rstrip().split(" ", 2):
            case ["GET", offset, name]:
                offset = int(offset)
            case _:
                raise ValueError("a request is: GET OFFSET NAME")
        path = (self.factory.folder / name).resolve()
        if not (path.is_relative_to(self.factory.folder) and path.is_file()):
            raise ValueError("no such file")
        if not 0 <= offset <= path.stat().st_size:
            raise ValueError("the offset is behind the end")
        file = path.open("rb")
        file.seek(offset)
        return Part(file, path.stat().st_size - offset)

    def lineReceived(self, line):
        try:
            part = self.openFile(line)
        except (OSError, ValueError) as error:
            self.sendLine(f"ERROR {error}".encode())
            return
        self.sendLine(f"OK {part.left}".encode())
        self.pauseProducing()
        self.setTimeout(self.factory.stallLimit)
        sending = FileSender().beginFileTransfer(part, self.transport, self.taken)
        sending.addCallback(self.sent, part)
        sending.addErrback(lambda failure: self.log.failure("a download", failure))

    def taken(self, data):
        """The peer has taken the bytes before these."""
        self.resetTimeout()
        return data

    def sent(self, _, part):
        if part.left:  # The file became shorter meanwhile.
            self.transport.loseConnection()
        elif not self.transport.disconnecting:
            self.setTimeout(IDLE_LIMIT)
            self.resumeProducing()

    def connectionLost(self, reason):
        self.setTimeout(None)
        self.factory.open.remove(self)
        if not self.factory.open and self.factory.drained:
            self.factory.drained.callback(None)


async def drain(reactor, port, factory):
    await port.stopListening()
    if factory.open:
        factory.drained = Deferred()
        for download in list(factory.open):
            download.transport.loseConnection()
        deadline = reactor.callLater(FAREWELL, lambda: [d.transport.abortConnection() for d in list(factory.open)])
        await factory.drained
        if deadline.active():
            deadline.cancel()


async def main(reactor, folder=".", description="tcp:7000", stallLimit="20"):
    factory = LimitTotalConnectionsFactory()
    factory.protocol, factory.connectionLimit = Download, 1000
    factory.folder, factory.stallLimit = Path(folder).resolve(), float(stallLimit)
    factory.open, factory.drained = set(), None
    port = await serverFromString(reactor, description).listen(factory)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(drain(reactor, port, factory)))
    print("listening on", port.getHost(), flush=True)
    await Deferred()


task.react(lambda reactor, *args: Deferred.fromCoroutine(main(reactor, *args)), sys.argv[1:])
