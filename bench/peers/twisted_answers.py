"""A server on Twisted's epoll reactor that answers requests: see src/answers.rs.

Prints `ready PORT`, and runs until its parent ends it.
"""

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import protocol, reactor  # noqa: E402

CONTENT = bytes(at % 251 for at in range(1 << 20))


class Answers(protocol.Protocol):
    def connectionMade(self):
        self.transport.setTcpNoDelay(True)
        self.partial = b""

    def dataReceived(self, data):
        data = self.partial + data
        whole = len(data) // 10 * 10
        for at in range(0, whole, 10):
            self.answer(data[at : at + 1], CONTENT[: int(data[at + 1 : at + 10])])
        self.partial = data[whole:]

    def answer(self, writes, answer):
        if writes == b"m":
            for at in range(0, len(answer), 1024):
                self.transport.write(answer[at : at + 1024])
        elif writes == b"2" and len(answer) > 4:
            self.transport.write(answer[:-4])
            self.transport.write(answer[-4:])
        else:
            self.transport.write(answer)


port = reactor.listenTCP(0, protocol.Factory.forProtocol(Answers), backlog=4096, interface="127.0.0.1")
print("ready", port.getHost().port, flush=True)
reactor.run(installSignalHandlers=False)
