"""
L{AsyncioRopewalkReactor}: Twisted and asyncio in one thread, on one engine.

asyncio's own C{SelectorEventLoop} runs on a selector that is the engine: its C{select} makes turns
until asyncio has something to do.
So Twisted's connections and timers are native, and asyncio has all that its loop has: streams,
executors, subprocesses, signal handlers. asyncio's own transports stay those of the standard
library.

The class is an L{AsyncioSelectorReactor<twisted.internet.asyncioreactor.AsyncioSelectorReactor>}, so
libraries that ask for one are content.

To choose it, install it before anything imports C{twisted.internet.reactor}::

    from ropewalk import asyncioreactor

    asyncioreactor.install()

Or use C{--reactor=ropewalk-asyncio}, or let L{run} run a coroutine.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Any, Optional, TypeVar, Union

from twisted.internet import base, error
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred
from twisted.internet.main import installReactor

from ropewalk._native import Engine
from ropewalk.accelerate import chosen, on
from ropewalk.reactor import RopewalkReactor

__all__ = ["AsyncioRopewalkReactor", "Loop", "install", "run"]

T = TypeVar("T")


class AsyncioRopewalkReactor(RopewalkReactor, AsyncioSelectorReactor):
    """
    The reactor, with an asyncio event loop beside it.

    @param backend: "mio" or "io_uring"; see L{ropewalk.install}.
    """

    def __init__(self, backend: Optional[str] = None) -> None:
        super().__init__(backend)
        self._asyncioEventloop = Loop(reactor=self)
        asyncio.set_event_loop(self._asyncioEventloop)

    # Calls of threads are queued, as on the other reactors, and not timers first.
    callFromThread = base.ReactorBase.callFromThread

    def run(self, installSignalHandlers: bool = True) -> None:
        """
        Run both loops until the reactor stops.
        """
        base.ReactorBase.run(self, installSignalHandlers)

    def mainLoop(self) -> None:
        """
        Run asyncio's loop, each step of which makes turns of the engine.

        C{SystemExit} and C{KeyboardInterrupt} in a callback of asyncio leave it, as they do there.
        """
        self._engine.begin()
        try:
            # Once: a program may stop asyncio's loop, which ends the run of Twisted's reactor too.
            self._asyncioEventloop.run_forever()
        finally:
            self._engine.end()

    def iterate(self, delay: float = 0.0) -> None:
        """
        Run both loops for a time, outside of a run.

        @param delay: the time in seconds.

        @raise twisted.internet.error.ReactorAlreadyRunning: inside of a callback.
        """
        loop = self._asyncioEventloop
        if loop.is_running():
            raise error.ReactorAlreadyRunning("the event loop of asyncio is running")
        timer = loop.call_later(delay, loop.stop)
        try:
            loop.run_forever()
        finally:
            timer.cancel()

    def _ready(self, selectable: Any, fd: int, isRead: bool, isHungUp: bool) -> None:
        if isinstance(selectable, _Registration):
            selectable.note(selectors.EVENT_READ if isRead else selectors.EVENT_WRITE)
        else:
            super()._ready(selectable, fd, isRead, isHungUp)

    def _closed(self, selectable: Any) -> None:
        # asyncio is told nothing of a closed descriptor by any selector.
        if not isinstance(selectable, _Registration):
            super()._closed(selectable)

    def removeAll(self) -> list[Any]:
        """
        Remove every reader and writer of Twisted's.
        """
        own = [_without_registrations(each) for each in (self._engine.readers(), self._engine.writers())]
        return self._removeAll(*own) + self._continuousPolling.removeAll()

    def getReaders(self) -> list[Any]:
        """
        List Twisted's readers. asyncio's are not among them.
        """
        return _without_registrations(super().getReaders())

    def getWriters(self) -> list[Any]:
        """
        List Twisted's writers. asyncio's are not among them.
        """
        return _without_registrations(super().getWriters())


class _Host:
    """
    Stands for the reactor, below an event loop of asyncio without Twisted.
    """

    def __init__(self, backend: Optional[str]) -> None:
        self._engine = Engine(self, backend)

    def _ready(self, registration: _Registration, fd: int, isRead: bool, isHungUp: bool) -> None:
        registration.note(selectors.EVENT_READ if isRead else selectors.EVENT_WRITE)

    def _closed(self, registration: _Registration) -> None:
        pass

    def _runThreadCalls(self) -> None:
        pass


class Loop(asyncio.SelectorEventLoop):
    """
    An asyncio event loop on an engine: that of a reactor, or one of its own.

    @param backend: "mio" or "io_uring", without a reactor; see L{ropewalk.install}.
    @param reactor: the reactor whose engine it runs on.
    """

    # For `__del__`, if there is no engine to be had.
    _closed = True

    def __init__(self, backend: Optional[str] = None, *, reactor: Optional[AsyncioRopewalkReactor] = None) -> None:
        host = _Host(backend) if reactor is None else reactor
        super().__init__(_EngineSelector(host))
        self._asks = host._engine.asyncio_asks
        # The loop appends to this queue, and never replaces it.
        host._engine.serve_asyncio(self._ready)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """
        Call a function at a time of this loop.
        """
        # A turn of the engine that is under way knows an earlier deadline.
        self._asks()
        return super().call_at(when, callback, *args, context=context)

    def stop(self) -> None:
        """
        Return from C{run_forever}.
        """
        self._asks()
        super().stop()


class _EngineSelector(selectors.BaseSelector):
    """
    A selector whose C{select} makes turns of the engine.
    """

    def __init__(self, host: Union[AsyncioRopewalkReactor, _Host]) -> None:
        self._host = host
        self._registrations: dict[int, _Registration] = {}
        self._ready: dict[_Registration, int] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = _number(fileobj)
        if fd in self._registrations:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        registration = _Registration(selectors.SelectorKey(fileobj, fd, events, data), self._ready)
        engine = self._host._engine
        try:
            if events & selectors.EVENT_READ:
                engine.add_reader(registration)
            if events & selectors.EVENT_WRITE:
                engine.add_writer(registration)
        except BaseException:
            engine.remove_reader(registration)
            raise
        self._registrations[fd] = registration
        return registration.key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        registration = self._registrations.pop(self._find(fileobj))
        self._host._engine.remove_reader(registration)
        self._host._engine.remove_writer(registration)
        self._ready.pop(registration, None)
        return registration.key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        registration = self._registrations[self._find(fileobj)]
        engine, before = self._host._engine, registration.key.events
        registration.key = registration.key._replace(events=events, data=data)
        # Additions come first, so that the descriptor stays watched.
        if events & ~before & selectors.EVENT_READ:
            engine.add_reader(registration)
        if events & ~before & selectors.EVENT_WRITE:
            engine.add_writer(registration)
        if before & ~events & selectors.EVENT_READ:
            engine.remove_reader(registration)
        if before & ~events & selectors.EVENT_WRITE:
            engine.remove_writer(registration)
        return registration.key

    def select(self, timeout: Optional[float] = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._ready.clear()
        self._host._engine.turns_for_asyncio(timeout, self._ready)
        ready = [(registration.key, events) for registration, events in self._ready.items()]
        return [(key, events & key.events) for key, events in ready if events & key.events]

    def close(self) -> None:
        for registration in list(self._registrations.values()):
            self.unregister(registration.key.fileobj)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._registrations[self._find(fileobj)].key

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return _Keys(self)

    def _find(self, fileobj: Any) -> int:
        """
        Return the number under which an object is registered, even if it was closed since.
        """
        try:
            fd = _number(fileobj)
        except ValueError:
            for fd, registration in self._registrations.items():
                if registration.key.fileobj is fileobj:
                    return fd
            raise
        if fd not in self._registrations:
            raise KeyError(f"{fileobj!r} is not registered")
        return fd


class _Keys(Mapping[Any, selectors.SelectorKey]):
    """
    The keys of a selector by their objects or numbers.
    """

    def __init__(self, selector: _EngineSelector) -> None:
        self._selector = selector

    def __len__(self) -> int:
        return len(self._selector._registrations)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._selector._registrations)

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.get_key(fileobj)


class _Registration:
    """
    A descriptor of asyncio's, as the engine knows it: a selectable that only notes its events.
    """

    def __init__(self, key: selectors.SelectorKey, ready: dict[_Registration, int]) -> None:
        self.key = key
        self._ready = ready

    def fileno(self) -> int:
        return self.key.fd

    def note(self, event: int) -> None:
        self._ready[self] = self._ready.get(self, 0) | event


def _number(fileobj: Any) -> int:
    fd = fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
    if fd < 0:
        raise ValueError(f"invalid file descriptor: {fileobj!r}")
    return fd


def _without_registrations(selectables: list[Any]) -> list[Any]:
    return [each for each in selectables if not isinstance(each, _Registration)]


def install(backend: Optional[str] = None, accelerate: Union[None, bool, str, Iterable[str]] = None) -> None:
    """
    Make an L{AsyncioRopewalkReactor} the global reactor: see L{ropewalk.install}.
    """
    names = chosen(accelerate)
    installReactor(AsyncioRopewalkReactor(backend))
    on(names)


def run(main: Coroutine[Any, Any, T], *, backend: Optional[str] = None) -> T:
    """
    Install the reactor, and run a coroutine of asyncio on it, with Twisted beside it.

    The reactor stops when the coroutine is done. SIGINT and SIGTERM, or C{reactor.stop()}, cancel
    the coroutine first, and wait for its end.

    @return: the result of the coroutine.

    @raise asyncio.CancelledError: if the reactor was stopped first.
    """
    try:
        names = chosen(None)
        reactor = AsyncioRopewalkReactor(backend)
        installReactor(reactor)
        on(names)
    except BaseException:
        main.close()
        raise
    loop = reactor._asyncioEventloop
    task = loop.create_task(main)

    def stop(done: asyncio.Task[T]) -> None:
        if reactor.running and not reactor._stopped:
            reactor.stop()

    def cancel() -> Optional[Deferred[None]]:
        if task.done():
            return None
        ended: Deferred[None] = Deferred()
        task.add_done_callback(lambda _: ended.callback(None))
        task.cancel()
        return ended

    reactor.callWhenRunning(task.add_done_callback, stop)
    reactor.addSystemEventTrigger("before", "shutdown", cancel)
    try:
        reactor.run()
        loop.run_until_complete(_shut_down(loop))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return task.result()


def run_alone(main: Coroutine[Any, Any, T], backend: Optional[str]) -> T:
    """
    Run a coroutine on a loop without Twisted: see L{ropewalk.run}.
    """
    try:
        loop = Loop(backend)
    except BaseException:
        main.close()
        raise
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        try:
            loop.run_until_complete(_shut_down(loop))
        finally:
            asyncio.set_event_loop(None)
            loop.close()


async def _shut_down(loop: asyncio.AbstractEventLoop) -> None:
    """
    End the other tasks, the generators and the threads of a loop, as C{asyncio.run} does.
    """
    others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in others:
        task.cancel()
    for outcome in await asyncio.gather(*others, return_exceptions=True):
        if isinstance(outcome, Exception):
            context = {"message": "a task failed while the loop was shut down", "exception": outcome}
            loop.call_exception_handler(context)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
