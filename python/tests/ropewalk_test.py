"""
Common parts of the tests: reactors of each kind, and programs in processes of their own.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Optional
from unittest import TestCase

from twisted.internet import protocol
from twisted.internet.error import ReactorNotRunning

from ropewalk.reactor import RopewalkReactor

HERE = pathlib.Path(__file__).resolve().parent

# Far longer than any test takes. A hang is killed.
SECONDS = 60


def backends() -> list[str]:
    """
    List the backends that this system has. io_uring may be forbidden.
    """
    reactor = RopewalkReactor("io_uring")
    return ["mio", "io_uring"] if reactor._engine.backend == "io_uring" else ["mio"]


BACKENDS = backends()


class ReactorCase(TestCase):
    """
    A test that runs on a reactor of its own, once for each backend.
    """

    def each(self, body: Callable[[RopewalkReactor], None]) -> None:
        """
        Call C{body} with a new reactor of each backend, run the reactor until it stops, and raise
        what a callback has handed to L{fail}.
        """
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                self.trouble: Optional[BaseException] = None
                reactor = RopewalkReactor(backend)
                reactor.callLater(SECONDS, self.abandon, reactor)
                body(reactor)
                reactor.run(installSignalHandlers=False)
                if self.trouble is not None:
                    raise self.trouble

    def abandon(self, reactor: RopewalkReactor) -> None:
        """
        End a run that takes too long.
        """
        self.trouble = AssertionError(f"the test took longer than {SECONDS} s")
        reactor.stop()

    def guarded(self, reactor: RopewalkReactor, call: Callable[..., Any]) -> Callable[..., Any]:
        """
        Wrap a callback, so that its exception fails the test and stops the reactor.
        """

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            except BaseException as exception:
                self.trouble = self.trouble or exception
                stop(reactor)

        return wrapped


def stop(reactor: RopewalkReactor) -> None:
    """
    Stop a reactor that may be stopping already.
    """
    try:
        reactor.stop()
    except ReactorNotRunning:
        pass


class Recorder(protocol.Protocol):
    """
    Keeps what it is told.
    """

    def __init__(self) -> None:
        self.received = b""
        self.reason: Any = None
        self.onMade: Callable[[Recorder], None] = lambda _: None
        self.onData: Callable[[Recorder], None] = lambda _: None
        self.onLost: Callable[[Recorder], None] = lambda _: None

    def connectionMade(self) -> None:
        self.onMade(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.onData(self)

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self.reason = reason
        self.onLost(self)


def pair(reactor: RopewalkReactor, server: protocol.Protocol, client: protocol.Protocol) -> Any:
    """
    Connect two protocols over the loopback interface. Returns the port.
    """
    accepting = protocol.Factory()
    accepting.buildProtocol = lambda address: server  # type: ignore[method-assign]
    connecting = protocol.ClientFactory()
    connecting.buildProtocol = lambda address: client  # type: ignore[method-assign]
    connecting.noisy = accepting.noisy = False
    port = reactor.listenTCP(0, accepting, interface="127.0.0.1")
    reactor.connectTCP("127.0.0.1", port.getHost().port, connecting)
    return port


def program(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """
    Run a Python program to its end.
    """
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=HERE / "programs",
        env={**os.environ, "PYTHONPATH": str(HERE / "programs"), **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def kill(process: subprocess.Popen[str]) -> None:
    """
    End a process that a test has started, if it is still there.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate()
