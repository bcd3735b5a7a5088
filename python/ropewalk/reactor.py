"""
L{RopewalkReactor}: Twisted's reactor, whose event loop, timers, and TCP and UNIX connections are
those of the engine in Rust.

Twisted's own classes do the rest: the life of a run, system events, threads, names, ports, clients
that are connecting, datagrams, processes and TLS. Their descriptors are watched by the
engine.

Limits:

  - C{reactor.iterate()} inside of a callback raises L{ReactorAlreadyRunning
    <twisted.internet.error.ReactorAlreadyRunning>}: callbacks are not re-entered.
  - C{reactor.seconds()} is monotonic. A change of the system's time of day moves no timer.
  - On io_uring, the reactor runs on the thread that made it.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterable
from traceback import format_stack
from typing import Any, Callable, Optional, Union

from zope.interface import classImplements, implementer

from twisted.internet import base, error, posixbase
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet
from twisted.internet.main import installReactor
from twisted.logger import Logger
from twisted.python import failure, log

from ropewalk import _tcp, _unix
from ropewalk._native import DelayedCall, Engine, callLater
from ropewalk.accelerate import chosen, on

__all__ = ["RopewalkReactor", "install"]

classImplements(DelayedCall, IDelayedCall)

# The messages that Twisted's own reactors log keep the name of their module.
_log = Logger(namespace="twisted.internet.base")


class _Bell:
    """
    Wakes the reactor, in the place of the pipe that Twisted's reactors read (C{reactor.waker}).
    """

    def __init__(self, engine: Engine) -> None:
        self.wakeUp = engine.ring


class _Reads:
    """
    The numbers of the descriptors that are read. L{posixbase._PollLikeMixin} looks for that of one
    that has hung up. No other selectable is asked for its own, which may fail.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __contains__(self, number: int) -> bool:
        return self._engine.is_read(number)


@implementer(IReactorFDSet)
class RopewalkReactor(posixbase.PosixReactorBase, posixbase._PollLikeMixin):
    """
    The reactor.

    @param backend: "mio" or "io_uring"; see L{ropewalk.install}.
    """

    _POLL_IN = select.POLLIN
    _POLL_OUT = select.POLLOUT
    _POLL_DISCONNECTED = select.POLLHUP | select.POLLERR | select.POLLNVAL

    def __init__(self, backend: Optional[str] = None) -> None:
        self._engine = Engine(self, backend)
        self._reads = _Reads(self._engine)
        self._continuousPolling = posixbase._ContinuousPolling(self)
        # An attribute of the instance, so that it costs no frame; programs may replace it.
        self.seconds = self._ownSeconds = self._engine.seconds
        self._engine.schedules_by(self._ownSeconds, base.DelayedCall)
        # By its name: a subclass has other reactors of Twisted's behind this class.
        posixbase.PosixReactorBase.__init__(self)

    # The loop

    def installWaker(self) -> None:
        """
        Let other threads ring the engine. It needs no pipe.
        """
        self.waker = _Bell(self._engine)

    def mainLoop(self) -> None:
        """
        Make turns until the reactor has stopped or crashed.
        """
        self._engine.begin()
        try:
            while self._started:
                try:
                    self._engine.run()
                except BaseException:
                    _log.failure("Unexpected error in main loop")
        finally:
            self._engine.end()
        _log.info("Main loop terminated.")

    def doIteration(self, delay: Optional[float]) -> None:
        """
        Make one turn.

        @param delay: the longest wait in seconds. L{None} is without limit.
        """
        self._engine.turn(delay)

    def iterate(self, delay: float = 0.0) -> None:
        """
        Make one turn, outside of a run.

        @param delay: the longest wait in seconds.

        @raise twisted.internet.error.ReactorAlreadyRunning: inside of a callback.
        """
        self._engine.turn(delay)

    def stop(self) -> None:
        """
        Stop the reactor, at the end of this turn.
        """
        super().stop()
        # The shutdown begins behind the calls that are due already, as in Twisted's own reactors.
        self._engine.call_soon(self._beginShutdown)

    def _beginShutdown(self) -> None:
        if self._justStopped:
            self._justStopped = False
            self.fireSystemEvent("shutdown")

    def crash(self) -> None:
        """
        Leave the loop at the end of this turn.
        """
        super().crash()
        self._engine.leave()

    def _runThreadCalls(self) -> None:
        """
        Make the calls of other threads that are queued so far. The engine calls this in phase 1 of
        a turn, once it was rung.
        """
        queue = self.threadCallQueue
        count = len(queue)
        for function, args, kwargs in queue[:count]:
            try:
                function(*args, **kwargs)
            except BaseException:
                _log.failure("while calling from thread")
        del queue[:count]
        if queue:
            self._engine.ring()

    # Timers

    # A native method, which schedules most calls itself.
    callLater = callLater

    def _callLater(self, delay: Any, callable: Callable[..., Any], *args: object, **kw: object) -> DelayedCall:
        """
        Schedule a call that needs more than a timer of the engine.
        """
        assert delay >= 0, f"{delay} is not greater than or equal to 0 seconds"
        clock = None if self.seconds is self._ownSeconds else self.seconds
        creator = format_stack()[:-1] if base.DelayedCall.debug else None
        return self._engine.call_later(delay, callable, args, kw or None, (clock, creator))

    # The name that errors have.
    _callLater.__name__, _callLater.__qualname__ = "callLater", "RopewalkReactor.callLater"

    def getDelayedCalls(self) -> list[DelayedCall]:
        """
        List the calls that are still to be made.
        """
        return self._engine.delayed_calls()

    def _timedCallFailed(self, call: DelayedCall, exception: BaseException) -> None:
        """
        Log the exception of a delayed call.
        """
        problem = failure.Failure(exception, type(exception), exception.__traceback__)
        if call.creator is None:
            _log.failure("while handling timed call", problem)
            return
        creator = "".join(call.creator).rstrip().replace("\n", "\n C:")
        _log.failure(
            "while handling timed call {previous}",
            problem,
            previous=f"\n C: from a DelayedCall created here:\n C:{creator}\n",
        )

    # TCP

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> _tcp.Port:
        """
        Listen: see L{IReactorTCP<twisted.internet.interfaces.IReactorTCP>}.
        """
        listening = _tcp.Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: Optional[float] = 30, bindAddress: Any = None
    ) -> _tcp.Connector:
        """
        Connect: see L{IReactorTCP<twisted.internet.interfaces.IReactorTCP>}.
        """
        connector = _tcp.Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    # UNIX sockets

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0) -> _unix.Port:
        """
        Listen: see L{IReactorUNIX<twisted.internet.interfaces.IReactorUNIX>}.
        """
        listening = _unix.Port(address, factory, backlog, mode, self, wantPID)
        listening.startListening()
        return listening

    def connectUNIX(
        self, address: Any, factory: Any, timeout: Optional[float] = 30, checkPID: int = 0
    ) -> _unix.Connector:
        """
        Connect: see L{IReactorUNIX<twisted.internet.interfaces.IReactorUNIX>}.
        """
        connector = _unix.Connector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    # Sockets from elsewhere

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """
        Listen on a socket from elsewhere: see
        L{IReactorSocket<twisted.internet.interfaces.IReactorSocket>}.
        """
        if addressFamily == socket.AF_UNIX:
            listening = _unix.Port._fromListeningDescriptor(self, fileDescriptor, factory)
        elif addressFamily in (socket.AF_INET, socket.AF_INET6):
            listening = _tcp.Port._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        else:
            raise error.UnsupportedAddressFamily(addressFamily)
        listening.startListening()
        return listening

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """
        Go on with a connected socket from elsewhere: see
        L{IReactorSocket<twisted.internet.interfaces.IReactorSocket>}.
        """
        if addressFamily == socket.AF_UNIX:
            return _unix.Server._fromConnectedSocket(fileDescriptor, factory, self)
        if addressFamily in (socket.AF_INET, socket.AF_INET6):
            return _tcp.Server._fromConnectedSocket(fileDescriptor, addressFamily, factory, self)
        raise error.UnsupportedAddressFamily(addressFamily)

    # Foreign descriptors

    def addReader(self, reader: Any) -> None:
        """
        Call C{doRead} when there is something to read.
        """
        try:
            self._engine.add_reader(reader)
        except PermissionError as e:
            if e.errno != errno.EPERM:
                raise
            # A file is always ready, so no poller takes it.
            self._continuousPolling.addReader(reader)

    def addWriter(self, writer: Any) -> None:
        """
        Call C{doWrite} when there is room to write.
        """
        try:
            self._engine.add_writer(writer)
        except PermissionError as e:
            if e.errno != errno.EPERM:
                raise
            self._continuousPolling.addWriter(writer)

    def removeReader(self, reader: Any) -> None:
        """
        End L{addReader}.
        """
        if self._continuousPolling.isReading(reader):
            self._continuousPolling.removeReader(reader)
        else:
            self._engine.remove_reader(reader)

    def removeWriter(self, writer: Any) -> None:
        """
        End L{addWriter}.
        """
        if self._continuousPolling.isWriting(writer):
            self._continuousPolling.removeWriter(writer)
        else:
            self._engine.remove_writer(writer)

    def removeAll(self) -> list[Any]:
        """
        Remove every reader and writer that is not the reactor's own, and list them.
        """
        return self._removeAll(self._engine.readers(), self._engine.writers()) + self._continuousPolling.removeAll()

    def getReaders(self) -> list[Any]:
        """
        List the readers.
        """
        return self._engine.readers() + self._continuousPolling.getReaders()

    def getWriters(self) -> list[Any]:
        """
        List the writers.
        """
        return self._engine.writers() + self._continuousPolling.getWriters()

    def _ready(self, selectable: Any, fd: int, isRead: bool, isHungUp: bool) -> None:
        """
        Handle a ready descriptor. The engine calls this in phase 6 of a turn.
        """
        event = self._POLL_IN if isRead else self._POLL_OUT
        if isHungUp:
            event = _eventsOf(fd, event)
        log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)

    def _closed(self, selectable: Any) -> None:
        """
        Handle a descriptor that was closed before it was removed.
        """
        reason = error.ConnectionFdescWentAway("File descriptor lost")
        log.callWithLogger(selectable, self._disconnectSelectable, selectable, reason, False)


# The name that follows from the module's, as `epollreactor` has an `EPollReactor`. pytest-twisted
# derives the class of the default reactor in this way.
Reactor = RopewalkReactor


def _eventsOf(fd: int, wanted: int) -> int:
    """
    Ask the system for the events of a descriptor that has hung up. The engine reports a hang-up as
    all that is wanted; Twisted has a rule for those with nothing to read.
    """
    poller = select.poll()
    poller.register(fd, wanted)
    return next((event for _, event in poller.poll(0)), 0)


def install(backend: Optional[str] = None, accelerate: Union[None, bool, str, Iterable[str]] = None) -> None:
    """
    Make a L{RopewalkReactor} the global reactor: see L{ropewalk.install}.
    """
    names = chosen(accelerate)
    installReactor(RopewalkReactor(backend))
    on(names)
