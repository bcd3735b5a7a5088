#!/usr/bin/env python3
"""examples/jobs.rs on Twisted: the same program, line for line where that is possible. Arguments:
where to listen (tcp:7000:interface=127.0.0.1), the seconds that a stop waits for answers (10)."""

import sys

from twisted.application.internet import StreamServerEndpointService, TimerService
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python import log
from twisted.python.threadpool import ThreadPool

LARGEST_LIMIT = 100_000_000
THREADS = 2
MOST_WAITING = 100
REPORT_INTERVAL = 60


class Jobs:
    accepted = done = 0

    def __init__(self):
        self.pool = ThreadPool(0, THREADS, "jobs")
        self.pool.start()
        reactor.addSystemEventTrigger("during", "shutdown", self.pool.stop)

    def status(self):
        waiting, running = self.pool._queue.qsize(), len(self.pool.working)
        return f"{waiting} waiting, {running} running, {self.done} done"


class Client(LineOnlyReceiver, TimeoutMixin):
    delimiter = b"\n"
    MAX_LENGTH = 100
    open = 0
    isLast = isLost = False

    def connectionMade(self):
        self.factory.clients.add(self)
        self.transport.bufferSize = 1024 * 1024
        self.transport.registerProducer(self, streaming=True)
        self.setTimeout(3600)

    def pauseProducing(self):
        self.transport.abortConnection()

    def resumeProducing(self):
        pass

    stopProducing = resumeProducing

    def dataReceived(self, data):
        self.resetTimeout()
        super().dataReceived(data)

    def say(self, text):
        if not self.isLost:
            self.sendLine(text.encode())

    def begin(self, limit):
        jobs = self.factory.jobs
        self.open += 1
        jobs.accepted += 1
        number = jobs.accepted
        self.say(f"job {number} is accepted")

        def progress(percent):
            reactor.callFromThread(self.say, f"job {number}: {percent}%")

        counted = deferToThreadPool(reactor, jobs.pool, countPrimes, limit, lambda: not self.isLost, progress)
        counted.addErrback(lambda failure: f"it failed: {failure.getErrorMessage()}")
        counted.addCallback(lambda answer: self.answer(number, answer))
        counted.addErrback(log.err, "a job")

    def answer(self, number, answer):
        if not self.isLost:
            self.say(f"job {number}: {answer}")
            self.factory.jobs.done += 1
            self.open -= 1
            self.closeIfDone()

    def finish(self):
        self.isLast = True
        self.closeIfDone()

    def closeIfDone(self):
        if self.isLast and self.open == 0:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def lineReceived(self, line):
        line = line.decode(errors="replace").strip()
        jobs, isJob, limit = self.factory.jobs, line.startswith("primes "), line.removeprefix("primes ")
        if line == "status":
            self.say(jobs.status())
        elif line == "quit":
            self.finish()
        elif not isJob:
            self.say("commands: primes LIMIT, status, quit")
        elif not limit.isdecimal() or int(limit) > LARGEST_LIMIT:
            self.say(f"a limit is a number up to {LARGEST_LIMIT}")
        elif self.isLast:
            self.say("this connection takes no more jobs")
        elif jobs.pool._queue.qsize() >= MOST_WAITING:
            self.say("too many jobs wait; try again")
        else:
            self.begin(int(limit))

    def connectionLost(self, reason):
        self.isLost = True
        self.setTimeout(None)
        self.factory.clients.remove(self)
        if self.factory.empty is not None and not self.factory.clients:
            self.factory.empty.callback(None)


class DrainingService(StreamServerEndpointService):
    def __init__(self, endpoint, factory, drain):
        super().__init__(endpoint, factory)
        self.drain = drain

    async def drained(self, stopped):
        await stopped
        if self.factory.clients:
            self.factory.empty = Deferred()
            for client in list(self.factory.clients):
                client.finish()
            deadline = reactor.callLater(self.drain, self.abort)
            await self.factory.empty
            if deadline.active():
                deadline.cancel()

    def abort(self):
        for client in list(self.factory.clients):
            client.transport.abortConnection()

    def stopService(self):
        return Deferred.fromCoroutine(self.drained(super().stopService()))


def countPrimes(limit, isWanted, progress):
    tenth, count = -(-limit // 10), 0
    for number in range(2, limit):
        if number % 1000 == 2 and not isWanted():
            raise RuntimeError("the client is gone")
        if number % tenth == 0:
            progress(number // tenth * 10)
        count += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
    return count


def address(host):
    return f"{host.host}:{host.port}"


def main(description="tcp:7000:interface=127.0.0.1", drain="10"):
    factory = Factory.forProtocol(Client)
    factory.jobs, factory.clients, factory.empty = Jobs(), set(), None
    program = MultiService()
    TimerService(REPORT_INTERVAL, lambda: print(factory.jobs.status(), flush=True)).setServiceParent(program)
    port = DrainingService(serverFromString(reactor, description), factory, int(drain))
    port.setServiceParent(program)
    program.privilegedStartService()
    program.startService()
    port._waitingForPort.addCallback(lambda port: print("listening on", address(port.getHost()), flush=True))
    reactor.addSystemEventTrigger("before", "shutdown", program.stopService)
    reactor.run()


main(*sys.argv[1:])
