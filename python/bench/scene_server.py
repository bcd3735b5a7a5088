"""
Serves one of the scenes of C{scenes}: C{scene_server.py REACTOR SCENE}. It prints its port, and
answers each line of its input with the seconds of CPU that it has taken so far, kernel included. It
ends with its input.

C{echo} sends back what it receives. C{web} is a site of C{twisted.web} with one small resource.
C{lines} answers each line with the line, and C{log} counts lines, and tells their number at the end
of the stream. On this package's reactors, their parsing is native.
"""

import os
import sys
import threading
import time

from echo_server import install

BODY = b"hello, world\n"


def echo():
    from twisted.internet import protocol

    class Echo(protocol.Protocol):
        def dataReceived(self, data):
            self.transport.write(data)

    return protocol.Factory.forProtocol(Echo)


def web():
    from twisted.web import resource, server

    class Hello(resource.Resource):
        isLeaf = True

        def render_GET(self, request):
            request.setHeader(b"content-type", b"text/plain")
            return BODY

    return server.Site(Hello())


def lines():
    from twisted.internet import protocol
    from twisted.protocols import basic

    class Lines(basic.LineReceiver):
        def lineReceived(self, line):
            self.sendLine(line)

    return protocol.Factory.forProtocol(Lines)


def log():
    from twisted.internet import interfaces, protocol
    from twisted.protocols import basic
    from zope.interface import implementer

    @implementer(interfaces.IHalfCloseableProtocol)
    class Log(basic.LineReceiver):
        received = 0

        def lineReceived(self, line):
            self.received += 1

        def readConnectionLost(self):
            self.transport.write(b"%d" % self.received)
            self.transport.loseConnection()

        def writeConnectionLost(self):
            pass

    return protocol.Factory.forProtocol(Log)


SCENES = {"echo": echo, "web": web, "lines": lines, "log": log}


def answer():
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
    os._exit(0)


def main():
    kind, scene = sys.argv[1:]
    install(kind)
    from twisted.internet import reactor

    if kind != "epoll" and scene in ("lines", "log"):
        from ropewalk import accelerate

        accelerate.on()
    port = reactor.listenTCP(0, SCENES[scene](), backlog=128, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    # The thread sleeps while a window lasts.
    threading.Thread(target=answer, daemon=True).start()
    reactor.run()


if __name__ == "__main__":
    main()
