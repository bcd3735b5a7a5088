#!/usr/bin/env python3
"""examples/tls_proxy.rs on Twisted: the same program, line for line where that is possible.

Arguments: the file with the certificate and the key, where to listen, where the server is, the most
clients.

twisted.protocols.portforward has no endpoints, no header and no ends of one direction."""

import signal
import socket
import struct
import sys

from OpenSSL import SSL
from twisted.application.internet import StreamServerEndpointService
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString, wrapServerTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.python import log
from zope.interface import implementer

DRAIN = 10


def header(peer, host):
    """A PROXY header of version 2 with a client's address."""
    family = socket.AF_INET6 if ":" in peer.host else socket.AF_INET
    addresses = socket.inet_pton(family, peer.host) + socket.inet_pton(family, host.host)
    addresses += struct.pack("!HH", peer.port, host.port)
    kind = 0x21 if family == socket.AF_INET6 else 0x11
    return b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", 0x21, kind, len(addresses)) + addresses


class Side(Protocol):
    other = None

    def dataReceived(self, data):
        if self.other is not None:
            self.other.transport.write(data)

    def connectionLost(self, reason):
        if self.other is not None:
            other, self.other.other = self.other, None
            other.transport.unregisterProducer()
            if reason.check(ConnectionDone):
                other.transport.loseConnection()
            else:
                other.transport.abortConnection()


class Inward(Side):
    isLost = False

    def connectionMade(self):
        self.factory.clients.add(self)
        self.transport.pauseProducing()
        connecting = connectProtocol(self.factory.server, Side())
        connecting.addCallbacks(self.join, self.fail)
        connecting.addErrback(log.err, "a connection can't be forwarded")

    def join(self, outward):
        if self.isLost:
            outward.transport.abortConnection()
            return
        self.other, outward.other = outward, self
        outward.transport.write(header(self.transport.getPeer(), self.transport.getHost()))
        self.transport.registerProducer(outward.transport, streaming=True)
        outward.transport.registerProducer(self.transport, streaming=True)
        self.transport.resumeProducing()

    def fail(self, failure):
        self.transport.abortConnection()
        return failure

    def connectionLost(self, reason):
        self.isLost = True
        self.factory.clients.remove(self)
        super().connectionLost(reason)
        if self.factory.empty is not None and not self.factory.clients:
            self.factory.empty.callback(None)


class Forwarding(Factory):
    protocol = Inward
    empty = None

    def __init__(self, server, most):
        self.server, self.most, self.clients = server, most, set()

    def buildProtocol(self, address):
        return super().buildProtocol(address) if len(self.clients) < self.most else None


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """The context of new connections, which SIGHUP reads again."""

    def __init__(self, path):
        self.path = path
        self.load()

    def load(self):
        with open(self.path) as file:
            self.options = ssl.PrivateCertificate.loadPEM(file.read()).options()

    def reload(self):
        try:
            self.load()
            print("the certificates were read again", flush=True)
        except Exception as error:
            print(f"the old certificates stay: {error}", file=sys.stderr)

    def serverConnectionForTLS(self, protocol):
        return SSL.Connection(self.options.getContext(), None)


class DrainingService(StreamServerEndpointService):
    async def drained(self, stopped):
        await stopped
        if self.factory.clients:
            self.factory.empty = Deferred()
            for client in list(self.factory.clients):
                client.transport.loseConnection()
            deadline = reactor.callLater(DRAIN, self.abort)
            await self.factory.empty
            if deadline.active():
                deadline.cancel()

    def abort(self):
        for client in list(self.factory.clients):
            client.transport.abortConnection()

    def stopService(self):
        return Deferred.fromCoroutine(self.drained(super().stopService()))


def address(host):
    return f"{host.host}:{host.port}"


def main(path, description, server, most="1000"):
    certificates = Certificates(path)
    factory = Forwarding(clientFromString(reactor, server), int(most))
    port = DrainingService(wrapServerTLS(certificates, serverFromString(reactor, description)), factory)
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(certificates.reload))
    port.privilegedStartService()
    port.startService()
    port._waitingForPort.addCallback(lambda port: print("listening on", address(port.getHost()), flush=True))
    reactor.addSystemEventTrigger("before", "shutdown", port.stopService)
    reactor.run()


main(*sys.argv[1:])
