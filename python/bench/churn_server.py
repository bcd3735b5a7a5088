"""
Serves short connections, round after round: C{churn_server.py REACTOR ROUNDS CONNECTIONS}. In a
round, each of the connections is made, echoes 64 bytes, and is closed by the client.

As in L{echo_server}, a child process is the client, and the server is blocked while the child acts:
all connections of a round are there when the reactor looks, and later all of their ends.
"""

import itertools
import multiprocessing
import os
import socket
import sys

from echo_server import DELAYS, install

MESSAGE = b"x" * 64


def client(port, connections, begin, done):
    while os.read(begin, 1):
        peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
        for peer in peers:
            peer.sendall(MESSAGE)
        os.write(done, b"x")
        os.read(begin, 1)
        for peer in peers:
            peer.recv(len(MESSAGE), socket.MSG_WAITALL)
            peer.close()
        os.write(done, b"x")


def main():
    kind, rounds, connections = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    install(kind)
    from twisted.internet import protocol, reactor

    (begun, begin), (done, told) = os.pipe(), os.pipe()
    answered, ended = itertools.cycle(range(connections)), itertools.cycle(range(connections))
    last, delays, left = connections - 1, DELAYS.get(kind, 2), iter(range(rounds))

    class Echo(protocol.Protocol):
        def dataReceived(self, data):
            self.transport.write(data)
            if next(answered) == last:
                reactor.callLater(0, act, delays - 1)

        def connectionLost(self, reason):
            if next(ended) == last:
                reactor.callLater(0, again)

    def act(delays):
        """
        Have the child act, once the answers of this round have left.
        """
        if delays:
            reactor.callLater(0, act, delays - 1)
            return
        os.write(begin, b"x")
        os.read(done, 1)

    def again():
        if next(left, None) is None:
            # Nothing is left to tear down in order.
            child.kill()
            os._exit(0)
        act(0)

    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), backlog=connections, interface="127.0.0.1")
    arguments = (port.getHost().port, connections, begun, told)
    child = multiprocessing.get_context("fork").Process(target=client, args=arguments, daemon=True)
    child.start()
    reactor.callWhenRunning(again)
    reactor.run()


if __name__ == "__main__":
    main()
