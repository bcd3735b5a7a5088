"""
Echoes a number of bytes and ends: C{echo_server.py REACTOR MESSAGES CONNECTIONS}. The instructions
of two runs with different numbers of messages, subtracted, are those of the messages alone.

A child process is the client. It uses no reactor: each of its connections has one message of 64
bytes under way.
"""

import multiprocessing
import os
import selectors
import socket
import sys

MESSAGE = b"x" * 64


def client(port, connections):
    waiting = selectors.DefaultSelector()
    for _ in range(connections):
        peer = socket.create_connection(("127.0.0.1", port))
        waiting.register(peer, selectors.EVENT_READ)
        peer.sendall(MESSAGE)
    while True:
        for key, _ in waiting.select():
            if not key.fileobj.recv(len(MESSAGE)):
                return
            key.fileobj.sendall(MESSAGE)


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
    kind, messages, connections = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    install(kind)
    from twisted.internet import protocol, reactor

    # Not an attribute of the class: Python forgets its caches of a class that changes.
    numbers = iter(range(messages, 0, -1))

    class Echo(protocol.Protocol):
        def dataReceived(self, data):
            self.transport.write(data)
            if next(numbers) == 1:
                # Nothing is left to tear down in order.
                child.kill()
                os._exit(0)

    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
    child = multiprocessing.get_context("fork").Process(target=client, args=(port.getHost().port, connections))
    child.start()
    reactor.run()


main()
