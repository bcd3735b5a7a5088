"""
Adds the reactors to the choices of pytest-twisted: C{--reactor=ropewalk} and
C{--reactor=ropewalk-asyncio}.

pytest-twisted reads its choices when pytest loads it. So this plugin is loaded before, by an
option::

    pytest -p ropewalk.pytest_plugin --reactor=ropewalk

or by the same options in C{pytest.ini}::

    [pytest]
    addopts = -p ropewalk.pytest_plugin --reactor=ropewalk
"""

from __future__ import annotations

from collections.abc import Callable

import pytest_twisted

from ropewalk import asyncioreactor, reactor


def _installer(install: Callable[[], None], kind: type) -> Callable[[], None]:
    """
    Make the function with which pytest-twisted installs a reactor.
    """

    def install_and_start() -> None:
        # It also makes the greenlet in which the reactor runs, and accepts an installed reactor of
        # the same class.
        pytest_twisted._install_reactor(reactor_installer=install, reactor_type=kind)

    return install_and_start


pytest_twisted.reactor_installers.update(
    {
        "ropewalk": _installer(reactor.install, reactor.RopewalkReactor), "ropewalk-asyncio":
        _installer(asyncioreactor.install, asyncioreactor.AsyncioRopewalkReactor),
    }
)
