"""
The plugin with which C{twist}, C{twistd} and C{trial} find the reactor: C{--reactor=ropewalk}, and
C{--reactor=ropewalk-asyncio} for the one with an event loop of asyncio.
"""

from twisted.application.reactors import Reactor

ropewalk = Reactor("ropewalk", "ropewalk.reactor", "An event loop in Rust, on epoll or io_uring (ropewalk).")

ropewalkAsyncio = Reactor(
    "ropewalk-asyncio",
    "ropewalk.asyncioreactor",
    "The same, with an event loop of asyncio beside it (ropewalk).",
)
