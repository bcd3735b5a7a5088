"""
The plugin with which C{twist}, C{twistd} and C{trial} find the reactor: C{--reactor=ropewalk}.
"""

from twisted.application.reactors import Reactor

ropewalk = Reactor("ropewalk", "ropewalk.reactor", "An event loop in Rust, on epoll or io_uring (ropewalk).")
