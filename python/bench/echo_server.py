"""
Echoes messages over each of a number of connections, round after round:
C{echo_server.py REACTOR ROUNDS CONNECTIONS [BYTES]}. A message has 64 bytes unless given. What two
runs with different numbers of rounds take, subtracted, is that of the rounds alone. With C{-} for
ROUNDS, it reads numbers of rounds from its input, and answers each with the seconds of CPU that the
rounds took.

A child process is the client. It uses no reactor. The server is blocked while the child sends, so
all messages of a round are there when the reactor looks: on a busy machine the figures are the
same. What the server does for that once a round is counted along.
"""

import itertools
import multiprocessing
import os
import socket
import sys
import time

# Delayed calls behind the last message of a round, until all answers have left: Twisted's reactors
# and the ring send them in the next turn.
DELAYS = {"mio": 1}


def client(port, connections, message, begin, done):
    peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    os.write(done, b"x")
    while os.read(begin, 1):
        for peer in peers:
            peer.sendall(message)
        os.write(done, b"x")
        for peer in peers:
            peer.recv(len(message), socket.MSG_WAITALL)


def install(kind):
    """
    Install a reactor. C{uvloop} has none: it is asyncio's protocols on uvloop.
    """
    if kind == "epoll":
        from twisted.internet import epollreactor

        epollreactor.install()
    elif kind == "asyncio-uvloop":
        import uvloop

        from twisted.internet import asyncioreactor

        asyncioreactor.install(uvloop.new_event_loop())
    elif kind == "asyncio":
        from ropewalk import asyncioreactor

        asyncioreactor.install()
    elif kind != "uvloop":
        import ropewalk

        ropewalk.install(kind)


class Rounds:
    """
    Begins rounds, and ends the process.
    """

    def __init__(self, rounds, connections, size, callLater, delays):
        self.connections, self.callLater, self.delays = connections, callLater, delays
        self.made = itertools.count(1)
        self.asks = rounds == "-"
        self.numbers = iter(()) if self.asks else iter(range(int(rounds), -1, -1))
        self.started = None
        (begun, self.begin), (self.done, told) = os.pipe(), os.pipe()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=connections)
        self.listener.setblocking(False)
        arguments = (self.listener.getsockname()[1], connections, b"x" * size, begun, told)
        self.child = multiprocessing.get_context("fork").Process(target=client, args=arguments, daemon=True)
        self.child.start()
        # All connections wait to be accepted.
        os.read(self.done, 1)

    def connected(self):
        if next(self.made) == self.connections:
            self.callLater(0, self.delayed, 0)

    def ended(self):
        self.callLater(0, self.delayed, self.delays - 1)

    def delayed(self, count):
        if count:
            self.callLater(0, self.delayed, count - 1)
        elif next(self.numbers, 0) or (self.asks and self.ask()):
            os.write(self.begin, b"x")
            os.read(self.done, 1)
        else:
            # Nothing is left to tear down in order.
            self.child.kill()
            os._exit(0)

    def ask(self):
        if self.started is not None:
            print(time.process_time() - self.started, flush=True)
        rounds = int(sys.stdin.readline() or 0)
        # One of them begins at once.
        self.numbers = iter(range(rounds - 1, 0, -1))
        self.started = time.process_time()
        return rounds


def serve_twisted(rounds, connections, size, delays):
    from twisted.internet import protocol, reactor

    driver = Rounds(rounds, connections, size, reactor.callLater, delays)
    # Not an attribute of a class: Python forgets its caches of a class that changes.
    places, last, ended = itertools.cycle(range(connections)), connections - 1, driver.ended

    class Echo(protocol.Protocol):
        def connectionMade(self):
            driver.connected()

        def dataReceived(self, data):
            self.transport.write(data)
            if next(places) == last:
                ended()

    factory = protocol.Factory.forProtocol(Echo)
    reactor.adoptStreamPort(driver.listener.fileno(), socket.AF_INET, factory)
    driver.listener.close()
    reactor.run()


def serve_uvloop(rounds, connections, size, delays):
    import asyncio

    import uvloop

    loop = uvloop.new_event_loop()
    driver = Rounds(rounds, connections, size, loop.call_later, delays)
    places, last, ended = itertools.cycle(range(connections)), connections - 1, driver.ended

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            driver.connected()

        def data_received(self, data):
            self.transport.write(data)
            if next(places) == last:
                ended()

    loop.run_until_complete(loop.create_server(Echo, sock=driver.listener))
    loop.run_forever()


def main():
    kind, rounds, connections = sys.argv[1], sys.argv[2], int(sys.argv[3])
    size = int(sys.argv[4]) if len(sys.argv) > 4 else 64
    install(kind)
    serve = serve_uvloop if kind == "uvloop" else serve_twisted
    serve(rounds, connections, size, DELAYS.get(kind, 2))


if __name__ == "__main__":
    main()
