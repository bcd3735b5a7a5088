#!/usr/bin/env python3
"""examples/redis.rs on Twisted: the same program, line for line where that is possible. Argument:
where to connect (tcp:localhost:6379)."""

import sys
from collections import deque

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver


class RedisError(Exception):
    pass


class Redis(LineReceiver):
    MAX_LENGTH = 64 * 1024

    def __init__(self):
        self.waiting = deque()

    def ask(self, *command):
        words = "".join(f"${len(word)}\r\n{word}\r\n" for word in map(str, command))
        self.transport.write(f"*{len(command)}\r\n{words}".encode())
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def lineReceived(self, line):
        kind, text = line[:1], line[1:]
        if kind == b"+":
            self.waiting.popleft().callback(text)
        elif kind == b"-":
            self.waiting.popleft().errback(RedisError(text.decode()))
        elif kind == b":":
            self.waiting.popleft().callback(int(text))
        elif line == b"$-1":
            self.waiting.popleft().callback(None)
        elif kind == b"$":
            self.value, self.left = [], int(text) + 2
            self.setRawMode()
        else:
            raise ValueError(f"a reply of an unknown kind: {line}")

    def rawDataReceived(self, data):
        self.value.append(data[: self.left])
        self.left -= len(self.value[-1])
        if self.left == 0:
            self.waiting.popleft().callback(b"".join(self.value)[:-2])
            self.setLineMode(data[len(self.value[-1]) :])

    def connectionLost(self, reason):
        for deferred in self.waiting:
            deferred.errback(reason)


def double(redis, total):
    """Adds the sum to itself until it is more than a thousand."""
    reply = redis.ask("INCRBY", "sum", total)
    return reply.addCallback(lambda total: double(redis, total) if total <= 1000 else total)


async def main(reactor, description="tcp:localhost:6379"):
    redis = await clientFromString(reactor, description).connect(Factory.forProtocol(Redis))
    commands = [("PING",), ("SET", "sum", 1), ("GET", "sum"), ("INCR", "visits")]
    print("pipelined:", await gatherResults([redis.ask(*command) for command in commands]))
    print("chained:", await double(redis, 1))


task.react(lambda reactor, *args: Deferred.fromCoroutine(main(reactor, *args)), sys.argv[1:])
