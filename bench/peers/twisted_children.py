"""Child processes on Twisted's epoll reactor: see src/bin/children.rs, which has the same lines."""

import os

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import protocol, reactor, stdio  # noqa: E402
from twisted.protocols import basic  # noqa: E402

PROGRAM = b"/bin/true"


class Ended(protocol.ProcessProtocol):
    def __init__(self, then):
        self.then = then

    def processEnded(self, reason):
        if reason.value.exitCode != 0:
            os._exit(1)
        self.then()


def run(number, then):
    if number == 0:
        then()
        return
    reactor.spawnProcess(
        Ended(lambda: run_soon(number - 1, then)), PROGRAM, [PROGRAM], env=None, childFDs={0: 0, 1: 1, 2: 2}
    )


def run_soon(number, then):
    # A chain of a thousand calls would be a deep one.
    reactor.callLater(0, run, number, then)


class Lines(basic.LineReceiver):
    delimiter = b"\n"
    held = None

    def connectionMade(self):
        run(1, lambda: self.sendLine(b"ready"))

    def lineReceived(self, line):
        word, number = line.split()
        if word == b"hold":
            self.held = bytearray(b"\1") * (int(number) << 20)
            self.sendLine(b"held")
        else:
            run(int(number), lambda: self.sendLine(b"done"))

    def connectionLost(self, reason):
        os._exit(0)


stdio.StandardIO(Lines())
reactor.run()
