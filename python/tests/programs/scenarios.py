"""
Scenes that have to look the same on every reactor: C{scenarios.py REACTOR NAME} plays one, and
prints its events and its log.

The log is printed with its prefixes, and of a traceback the last line: times, addresses of objects
and the frames of the reactor differ.
"""

import os
import signal
import sys
import threading

KIND, NAME = sys.argv[1:3]
if KIND == "epoll":
    from twisted.internet import epollreactor

    epollreactor.install()
elif KIND == "asyncio":
    from ropewalk import asyncioreactor

    asyncioreactor.install()
else:
    import ropewalk

    ropewalk.install(KIND)

from zope.interface import implementer  # noqa: E402

from twisted.internet import base, error, interfaces, protocol, reactor  # noqa: E402
from twisted.python import log  # noqa: E402


def observer(event):
    text = log.textFromEventDict(event)
    lines = text.splitlines() if text else []
    shown = [lines[0], lines[-1]] if len(lines) > 1 else lines
    if not any(word in text for word in (" starting on ", "Port ", "Main loop terminated", "factory")):
        print(f"[{event['system']}]", *(line.strip() for line in shown), flush=True)


log.startLoggingWithObserver(observer, setStdout=False)


def say(*words):
    print(*words, flush=True)


class Talker(protocol.Protocol):
    """
    Says what it is told.
    """

    def __init__(self, name):
        self.name = name

    def connectionMade(self):
        say(self.name, "made", self.transport.connected, self.transport.disconnecting)
        log.msg(f"{self.name} made")

    def dataReceived(self, data):
        say(self.name, "received", len(data) if len(data) > 40 else data)
        log.msg(f"{self.name} received")

    def connectionLost(self, reason):
        say(self.name, "lost", reason.type.__name__, self.transport.connected, self.transport.disconnected)
        log.msg(f"{self.name} lost")


@implementer(interfaces.IHalfCloseableProtocol)
class HalfTalker(Talker):
    def readConnectionLost(self):
        say(self.name, "read lost")

    def writeConnectionLost(self):
        say(self.name, "write lost")


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
    port = reactor.listenTCP(0, accepting, interface="127.0.0.1")
    reactor.connectTCP("127.0.0.1", port.getHost().port, connecting)
    return port


def wrap(each, lost, left):
    def call(reason):
        lost(reason)
        left.discard(each)
        if not left and reactor.running:
            reactor.callLater(0, reactor.stop)

    return call


def failing_data_received():
    class Failing(Talker):
        def dataReceived(self, data):
            super().dataReceived(data)
            raise RuntimeError("in dataReceived")

    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.write(b"hello")

    connect(Failing("server"), Client("client"))


def failing_interrupts():
    """
    KeyboardInterrupt and SystemExit in a callback end a connection, and not the reactor.
    """

    class Failing(Talker):
        def dataReceived(self, data):
            raise KeyboardInterrupt() if self.name == "server" else SystemExit(3)

    class Client(Failing):
        def connectionMade(self):
            super().connectionMade()
            self.transport.write(b"hello")

    class Server(Failing):
        def connectionLost(self, reason):
            super().connectionLost(reason)
            reactor.callLater(0, interrupt)

    def interrupt():
        reactor.callLater(0, say, "goes on")
        raise KeyboardInterrupt()

    connect(Server("server"), Client("client"))


def failing_lost():
    class Failing(Talker):
        def connectionLost(self, reason):
            super().connectionLost(reason)
            reactor.callLater(0.05, reactor.stop)
            raise RuntimeError("in connectionLost")

    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.loseConnection()

    server, client = Failing("server"), Client("client")
    accepting = protocol.Factory()
    accepting.buildProtocol = lambda address: server
    connecting = protocol.ClientFactory()
    connecting.buildProtocol = lambda address: client
    port = reactor.listenTCP(0, accepting, interface="127.0.0.1")
    reactor.connectTCP("127.0.0.1", port.getHost().port, connecting)


def half_closes():
    """
    Both sides end their writing. No loss is reported before `loseConnection`.
    """

    class Server(HalfTalker):
        def readConnectionLost(self):
            super().readConnectionLost()
            self.transport.write(b"last words")
            self.transport.loseWriteConnection()

        def writeConnectionLost(self):
            super().writeConnectionLost()
            reactor.callLater(0.1, self.finish)

        def finish(self):
            say("server finishes")
            self.transport.write(b"dropped")
            self.transport.loseConnection()
            say("server finished")

    class Client(HalfTalker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.write(b"hello")
            self.transport.loseWriteConnection()

        def readConnectionLost(self):
            super().readConnectionLost()
            reactor.callLater(0.05, self.transport.abortConnection)

    connect(Server("server"), Client("client"))


def closing():
    """
    Bytes written before and behind `loseConnection` arrive; later requests do nothing.
    """

    class Server(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.write(b"one ")
            self.transport.writeSequence([b"two ", b"three "])
            self.transport.loseConnection()
            self.transport.write(b"four")
            self.transport.loseConnection()
            say("closing", self.transport.connected, self.transport.disconnecting)

        def connectionLost(self, reason):
            super().connectionLost(reason)
            self.transport.write(b"nothing")
            self.transport.loseConnection()
            self.transport.abortConnection()
            say(self.transport.getPeer().host, hasattr(self.transport, "socket"))

    connect(Server("server"), Talker("client"))


def aborting():
    class Server(Talker):
        def dataReceived(self, data):
            super().dataReceived(data)
            self.transport.write(b"never sent")
            self.transport.abortConnection()
            self.transport.abortConnection()
            say("aborted", self.transport.connected, self.transport.disconnecting)

    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.write(b"hello")

    connect(Server("server"), Client("client"))


def stopping():
    """
    The reactor's stop disconnects what is open.
    """

    class Client(Talker):
        def connectionMade(self):
            super().connectionMade()
            reactor.callLater(0.05, reactor.stop)
            reactor.callLater(0.05, say, "behind the stop")

    reactor.addSystemEventTrigger("before", "shutdown", say, "before shutdown")
    reactor.addSystemEventTrigger("during", "shutdown", say, "during shutdown")
    reactor.addSystemEventTrigger("after", "shutdown", say, "after shutdown")
    connect(Talker("server"), Client("client"))


def pushing():
    """
    A push producer is paused above the limit, resumed once, and stopped with its connection.
    """

    @implementer(interfaces.IPushProducer)
    class Producer:
        pauses = resumes = 0

        def pauseProducing(self):
            if not self.pauses:
                say("pause")
            self.pauses += 1

        def resumeProducing(self):
            self.resumes += 1
            say("resume", self.resumes)
            if self.resumes == 2:
                server.transport.unregisterProducer()
                server.transport.loseConnection()
            else:
                self.fill()

        def stopProducing(self):
            say("stop")

        def fill(self):
            for _ in range(400):
                server.transport.write(b"x" * 65536)

    class Server(Talker):
        def connectionMade(self):
            super().connectionMade()
            producer = Producer()
            self.transport.registerProducer(producer, True)
            try:
                self.transport.registerProducer(producer, True)
            except RuntimeError:
                say("refused")
            producer.fill()

    class Client(Talker):
        count = 0

        def connectionMade(self):
            super().connectionMade()
            self.transport.pauseProducing()
            reactor.callLater(0.05, self.transport.resumeProducing)

        def dataReceived(self, data):
            self.count += len(data)

        def connectionLost(self, reason):
            say(self.count)
            super().connectionLost(reason)

    server = Server("server")
    connect(server, Client("client"))


def pulling():
    """
    A pull producer is asked at once, and again for each piece that was sent. It holds a close.
    """

    @implementer(interfaces.IPullProducer)
    class Producer:
        def __init__(self, consumer):
            self.consumer, self.left = consumer, 5

        def resumeProducing(self):
            say("resume", self.left)
            self.left -= 1
            self.consumer.write(b"x" * 70000)
            if not self.left:
                self.consumer.unregisterProducer()

        def stopProducing(self):
            say("stop")

    class Server(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.write(b"y" * 100000)
            self.transport.registerProducer(Producer(self.transport), False)
            self.transport.loseConnection()
            say("registered")

    class Client(Talker):
        count = 0

        def dataReceived(self, data):
            self.count += len(data)

        def connectionLost(self, reason):
            say(self.count)
            super().connectionLost(reason)

    connect(Server("server"), Client("client"))


def failing_producer():
    @implementer(interfaces.IPullProducer)
    class Producer:
        resumes = 0

        def resumeProducing(self):
            self.resumes += 1
            if self.resumes == 2:
                raise RuntimeError("in resumeProducing")
            server.transport.write(b"x")

        def stopProducing(self):
            say("stop")

    class Server(Talker):
        def connectionMade(self):
            super().connectionMade()
            self.transport.registerProducer(Producer(), False)

    server = Server("server")
    connect(server, Talker("client"))


def bad_arguments():
    class Client(Talker):
        def connectionMade(self):
            for call in (
                lambda: self.transport.write("text"),
                lambda: self.transport.write(bytearray(b"x")),
                lambda: self.transport.writeSequence([b"x", "text"]),
            ):
                try:
                    call()
                except TypeError as e:
                    say("TypeError", e)
            self.transport.write(b"")
            self.transport.writeSequence([])
            self.transport.loseConnection()

    connect(Talker("server"), Client("client"))


def timers():
    """
    Due calls come before a shutdown that was requested before them; failures are logged.
    """

    def fail():
        raise RuntimeError("in a timer")

    def begin():
        reactor.callLater(0, say, "first")
        reactor.callLater(0, fail)
        reactor.callFromThread(say, "from a thread")
        reactor.callFromThread(fail)
        base.DelayedCall.debug = True
        reactor.callLater(0, fail)
        base.DelayedCall.debug = False
        cancelled = reactor.callLater(0, say, "never")
        cancelled.cancel()
        for call in (cancelled.cancel, lambda: cancelled.reset(1), lambda: cancelled.delay(1)):
            try:
                call()
            except error.AlreadyCancelled as e:
                say(type(e).__name__, e)
        moved = reactor.callLater(1000, say, "moved")
        moved.reset(0.02)
        moved.delay(0.01)
        later = reactor.callLater(0.01, lambda: say(later.active(), later.called, later.cancelled))
        reactor.callLater(0.1, reactor.stop)
        reactor.callLater(0.1, say, "behind the stop")
        say(len(reactor.getDelayedCalls()), all(call.active() for call in reactor.getDelayedCalls()))

    reactor.callWhenRunning(begin)


def interrupted():
    """
    SIGINT in the wait, without handlers: logged, and the reactor goes on.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reactor.callLater(0.4, say, "goes on")
    reactor.callLater(0.5, reactor.stop)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    reactor.run(installSignalHandlers=False)


def signalled():
    """
    A handler of a signal runs while the reactor is asleep, and SIGTERM ends it.
    """

    def handler(number, frame):
        say("SIGUSR1")
        reactor.callFromThread(say, "from the handler")
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()

    signal.signal(signal.SIGUSR1, handler)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()


def forked():
    """
    A callback forks and waits for its child; a child of Twisted's reports its end.
    """

    class Process(protocol.ProcessProtocol):
        def outReceived(self, data):
            say("child said", data)

        def processEnded(self, reason):
            say("child ended", reason.value.exitCode)
            reactor.stop()

    def fork():
        child = os.fork()
        if not child:
            os._exit(7)
        say("forked", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        reactor.spawnProcess(Process(), "/bin/sh", ["sh", "-c", "echo hello; exit 5"], env=None)

    reactor.callWhenRunning(fork)


def play(scene):
    scene()
    if not reactor._startedBefore:
        reactor.run()
    say("end")


if __name__ == "__main__":
    play(globals()[NAME])
