"""
A reactor for Twisted, on an event loop in Rust.

Switch it on before anything imports C{twisted.internet.reactor}::

    import ropewalk

    ropewalk.install()

Or from outside of the program: C{python -m ropewalk PROGRAM.py}, C{twist --reactor=ropewalk},
C{trial --reactor=ropewalk}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional, Union

__all__ = ["__version__", "install"]

__version__ = "0.1.0"


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
