"""
Scenes over TLS, played as those of C{scenarios.py}. TLS is Twisted's own, with pyOpenSSL.
"""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from scenarios import NAME, Talker, interfaces, play, protocol, reactor, say, wrap
from zope.interface import implementer

from twisted.internet import ssl


def certificate(common_name):
    """
    Make a certificate that signs itself.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    signed = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ssl.PrivateCertificate.loadPEM(plain + signed.public_bytes(serialization.Encoding.PEM))


SERVER = certificate("localhost").options()
CLIENT = ssl.CertificateOptions()


@implementer(interfaces.IHandshakeListener)
class Secure(Talker):
    """
    Says how many bytes it has received, when it is lost.
    """

    count = 0

    def handshakeCompleted(self):
        say(self.name, "handshake", self.transport.getPeerCertificate() is not None)

    def dataReceived(self, data):
        self.count += len(data)

    def connectionLost(self, reason):
        say(self.name, "count", self.count)
        super().connectionLost(reason)


def connect(server, client, plain=False):
    """
    Connect two protocols, with TLS or without. When both are lost, the reactor stops.
    """
    left = {server, client}
    for each in (server, client):
        each.connectionLost = wrap(each, each.connectionLost, left)
    accepting = protocol.Factory()
    accepting.buildProtocol = lambda address: server
    connecting = protocol.ClientFactory()
    connecting.buildProtocol = lambda address: client
    if plain:
        port = reactor.listenTCP(0, accepting, interface="127.0.0.1")
        reactor.connectTCP("127.0.0.1", port.getHost().port, connecting)
    else:
        port = reactor.listenSSL(0, accepting, SERVER, interface="127.0.0.1")
        reactor.connectSSL("127.0.0.1", port.getHost().port, connecting, CLIENT)


def tls_both_ways():
    """
    Data goes both ways. The client closes when it has its answer: both ends are lost in order.
    """

    class Server(Secure):
        def dataReceived(self, data):
            super().dataReceived(data)
            self.transport.write(data)

    class Client(Secure):
        def connectionMade(self):
            super().connectionMade()
            say("client", interfaces.ISSLTransport.providedBy(self.transport))
            self.transport.write(b"x" * 300_000)
            self.transport.writeSequence([b"y"] * 1000)

        def dataReceived(self, data):
            super().dataReceived(data)
            if self.count == 301_000:
                self.transport.loseConnection()

    connect(Server("server"), Client("client"))


def tls_closing():
    """
    Bytes that were written before the close arrive ahead of its alert.
    """

    class Server(Secure):
        def handshakeCompleted(self):
            super().handshakeCompleted()
            self.transport.write(b"x" * 1_000_000)
            self.transport.loseConnection()
            self.transport.write(b"dropped")

    connect(Server("server"), Secure("client"))


def tls_without_alert():
    """
    An end of the stream without an alert is a loss, not an end in order.
    """

    class Client(Secure):
        def handshakeCompleted(self):
            super().handshakeCompleted()
            self.transport.transport.loseConnection()

    class Server(Secure):
        def connectionLost(self, reason):
            say(self.name, "clean", reason.check("twisted.internet.error.ConnectionDone") is not None)
            super().connectionLost(reason)

    connect(Server("server"), Client("client"))


def tls_half_close():
    """
    Half-closing is TCP's: the write direction ends below TLS.
    """

    class Client(Secure):
        def handshakeCompleted(self):
            super().handshakeCompleted()
            self.transport.write(b"hello")
            reactor.callLater(0.1, self.transport.loseWriteConnection)

    connect(Secure("server"), Client("client"))


def tls_aborting():
    class Server(Secure):
        def dataReceived(self, data):
            super().dataReceived(data)
            self.transport.write(b"never sent")
            self.transport.abortConnection()
            self.transport.abortConnection()

    class Client(Secure):
        def handshakeCompleted(self):
            super().handshakeCompleted()
            self.transport.write(b"hello")

    connect(Server("server"), Client("client"))


def tls_failing():
    class Server(Secure):
        def dataReceived(self, data):
            raise RuntimeError("in dataReceived")

    class Client(Secure):
        def handshakeCompleted(self):
            super().handshakeCompleted()
            self.transport.write(b"hello")

    connect(Server("server"), Client("client"))


def tls_refused():
    """
    The peer does not speak TLS.
    """

    class Server(Talker):
        def dataReceived(self, data):
            self.transport.write(b"220 hello\r\n" * 10)

    left = {"server", "client"}
    server, client = Server("server"), Secure("client")
    for each in (server, client):
        each.connectionLost = wrap(each.name, each.connectionLost, left)
    accepting = protocol.Factory()
    accepting.buildProtocol = lambda address: server
    connecting = protocol.ClientFactory()
    connecting.buildProtocol = lambda address: client
    port = reactor.listenTCP(0, accepting, interface="127.0.0.1")
    reactor.connectSSL("127.0.0.1", port.getHost().port, connecting, CLIENT)


class Starting(Secure):
    """
    Starts TLS in the middle of a stream: the server behind its answer, the client behind that.
    """

    started = False

    def connectionMade(self):
        super().connectionMade()
        if self.name == "client":
            self.transport.write(b"STARTTLS")

    def dataReceived(self, data):
        if self.started:
            return self.secretReceived(data)
        say(self.name, "received", data)
        if self.name == "server":
            self.transport.write(b"GO")
        self.started = True
        self.transport.startTLS(SERVER if self.name == "server" else CLIENT)
        say(self.name, "started", interfaces.ISSLTransport.providedBy(self.transport))
        self.begun()

    def begun(self):
        if self.name == "client":
            self.transport.write(b"x" * 200_000)

    def secretReceived(self, data):
        self.count += len(data)
        if self.name == "server":
            self.transport.write(data)
        elif self.count == 200_000:
            self.transport.loseConnection()


def tls_started():
    connect(Starting("server"), Starting("client"), plain=True)


def tls_started_with_a_producer():
    """
    A producer that is registered goes on above TLS.
    """

    @implementer(interfaces.IPullProducer)
    class Producer:
        left = 20

        def resumeProducing(self):
            if client.started:
                self.left -= 1
                client.transport.write(b"x" * 10_000)
            if not self.left:
                client.transport.unregisterProducer()

        def stopProducing(self):
            say("client", "stop")

    class Client(Starting):
        def connectionMade(self):
            super().connectionMade()
            self.transport.registerProducer(Producer(), False)

        def begun(self):
            pass

    client = Client("client")
    connect(Starting("server"), client, plain=True)


if __name__ == "__main__":
    play(globals()[NAME])
