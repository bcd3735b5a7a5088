"""
A reactor for Twisted, on an event loop in Rust.

Switch it on before anything imports C{twisted.internet.reactor}::

    import ropewalk

    ropewalk.install()

Or from outside of the program: C{python -m ropewalk PROGRAM.py}, C{twist --reactor=ropewalk},
C{trial --reactor=ropewalk}.

L{run} and C{Loop} are for programs of asyncio without Twisted.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union

if TYPE_CHECKING:
    from ropewalk.asyncioreactor import Loop

__all__ = ["Loop", "__version__", "install", "run"]

__version__ = "0.1.0"

T = TypeVar("T")


def install(
    backend: Optional[str] = None, *, accelerate: Union[None, bool, str, Iterable[str]] = None
) -> None:
    """
    Make a L{RopewalkReactor<ropewalk.reactor.RopewalkReactor>} the global reactor.

    @param backend: "mio" (epoll or kqueue) or "io_uring". By default the environment variable
        C{ROPEWALK_BACKEND} selects it, and "mio" is the backend if it is not set either. If the
        system forbids io_uring, the reactor uses mio, and logs the reason.

    @param accelerate: the receivers of Twisted's that native code parses for: C{True} for all, or
        names such as "LineReceiver". By default the environment variable C{ROPEWALK_ACCELERATE}
        names them ("all", or names separated by commas), and there are none if it is not set
        either. See L{ropewalk.accelerate}.

    @raise ValueError: if a name is unknown.

    @raise twisted.internet.error.ReactorAlreadyInstalledError: if there is a global reactor.
    """
    # Imported here, so that `import ropewalk` alone imports no part of Twisted.
    from ropewalk.reactor import install as install_reactor

    install_reactor(backend, accelerate)


def run(main: Coroutine[Any, Any, T], *, backend: Optional[str] = None) -> T:
    """
    Run a coroutine of asyncio on a loop of its own, as C{asyncio.run} does. It may be called again.

    For Twisted beside asyncio, see L{ropewalk.asyncioreactor.run}.

    @param backend: see L{install}.

    @return: the result of the coroutine.
    """
    from ropewalk.asyncioreactor import run_alone

    return run_alone(main, backend)


def __getattr__(name: str) -> Any:
    if name == "Loop":
        from ropewalk.asyncioreactor import Loop

        return Loop
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
