"""
A program that switches the reactor on by itself: C{installs_itself.py [BACKEND]}.
"""

import sys

import ropewalk

ropewalk.install(*sys.argv[1:])

from twisted.internet import reactor  # noqa: E402

reactor.callLater(0, reactor.stop)
reactor.run()
print(type(reactor).__name__, reactor._engine.backend, sys.argv[1:])
