"""
Echoes 64 bytes over each of a number of connections, round after round, and ends:
C{echo_server.py REACTOR ROUNDS CONNECTIONS}. The instructions of two runs with different numbers of
rounds, subtracted, are those of the rounds alone.

A child process is the client. It uses no reactor. The server is blocked while the child sends, so all
messages of a round are there when the reactor looks: on a busy machine the figures are the same. What
the server does for that once a round is counted along.
"""

import itertools
import multiprocessing
import os
import socket
import sys

MESSAGE = b"x" * 64

# Delayed calls behind the last message of a round, until all answers have left: Twisted's reactors
# and the ring send them in the next turn.
DELAYS = {"mio": 1}


def client(port, connections, begin, done):
    peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    os.write(done, b"x")
    while os.read(begin, 1):
        for peer in peers:
            peer.sendall(MESSAGE)
        os.write(done, b"x")
        for peer in peers:
            peer.recv(len(MESSAGE), socket.MSG_WAITALL)


def install(kind):
    if kind == "epoll":
        from twisted.internet import epollreactor

        epollreactor.install()
    elif kind == "asyncio":
        from ropewalk import asyncioreactor

        asyncioreactor.install()
    else:
        import ropewalk

        ropewalk.install(kind)


def main():
    kind, rounds, connections = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    install(kind)
    from twisted.internet import protocol, reactor

    # Not attributes of a class: Python forgets its caches of a class that changes.
    places = itertools.cycle(range(connections))
    made = itertools.count(1)
    numbers = iter(range(rounds, -1, -1))
    last = connections - 1

    def delayed(count):
        if count:
            reactor.callLater(0, delayed, count - 1)
        elif next(numbers):
            os.write(begin, b"x")
            os.read(done, 1)
        else:
            # Nothing is left to tear down in order.
            child.kill()
            os._exit(0)

    class Echo(protocol.Protocol):
        def connectionMade(self):
            if next(made) == connections:
                reactor.callLater(0, delayed, 0)

        def dataReceived(self, data):
            self.transport.write(data)
            if next(places) == last:
                reactor.callLater(0, delayed, DELAYS.get(kind, 2) - 1)

    factory = protocol.Factory.forProtocol(Echo)
    port = reactor.listenTCP(0, factory, backlog=connections, interface="127.0.0.1")
    (begun, begin), (done, told) = os.pipe(), os.pipe()
    arguments = (port.getHost().port, connections, begun, told)
    child = multiprocessing.get_context("fork").Process(target=client, args=arguments)
    child.start()
    # All connections wait to be accepted.
    os.read(done, 1)
    reactor.run()


main()
