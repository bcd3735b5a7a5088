"""
Tests for pytest-twisted: an echo server and ten clients, in a coroutine, and in a fixture that
waits outside of the reactor's greenlet. The reactor has to be a $REACTOR.
"""

import os

import pytest
import pytest_twisted

from twisted.internet import defer, protocol, reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol


class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class Greeter(protocol.Protocol):
    def __init__(self, greeting):
        self.greeting, self.answer, self.done = greeting, b"", defer.Deferred()

    def connectionMade(self):
        self.transport.write(self.greeting)

    def dataReceived(self, data):
        self.answer += data
        if len(self.answer) == len(self.greeting):
            self.transport.loseConnection()

    def connectionLost(self, reason):
        self.done.callback(self.answer)


@pytest_twisted.async_yield_fixture
async def port():
    listening = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
    yield listening.getHost().port
    await listening.stopListening()


def greet(port, number):
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    connected = connectProtocol(endpoint, Greeter(b"hello from %d" % number))
    return connected.addCallback(lambda greeter: greeter.done)


ANSWERS = [b"hello from %d" % number for number in range(10)]


@pytest_twisted.ensureDeferred
async def test_ten_clients(port):
    assert type(reactor).__name__ == os.environ["REACTOR"]
    assert await defer.gatherResults([greet(port, number) for number in range(10)]) == ANSWERS


@pytest.fixture
def answers(port):
    return [pytest_twisted.blockon(greet(port, number)) for number in range(10)]


def test_ten_clients_of_a_fixture(answers):
    assert answers == ANSWERS
