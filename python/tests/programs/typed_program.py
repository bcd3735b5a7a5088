"""
A program with types, which C{mypy --strict} checks against those of the package.
"""

from __future__ import annotations

import asyncio

import ropewalk
from ropewalk import asyncioreactor
from ropewalk.reactor import RopewalkReactor


async def main() -> str:
    await asyncio.sleep(0)
    return "done"


def on_asyncio() -> str:
    return asyncioreactor.run(main(), backend="io_uring")


def alone() -> str:
    return ropewalk.run(main())


def makes_a_loop() -> asyncio.AbstractEventLoop:
    return ropewalk.Loop(backend="mio")


def by_itself(reactor: RopewalkReactor) -> float:
    call = reactor.callLater(1, print, "later")
    call.reset(2)
    return call.getTime() - reactor.seconds()


ropewalk.install(backend="mio")
version: str = ropewalk.__version__
