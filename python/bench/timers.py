"""
Schedules delayed calls and ends: C{timers.py REACTOR CASE CALLS}. What two runs with different
numbers of calls take, subtracted, is that of the calls alone.

C{cancel} schedules calls and cancels them, a hundred at a time. C{fire} has a call that schedules
the next one.
"""

import os
import sys

from echo_server import install


def main():
    kind, case, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
    install(kind)
    if kind == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
        later, run = loop.call_later, loop.run_forever
    else:
        from twisted.internet import reactor

        later, run = reactor.callLater, reactor.run

    def nothing():
        pass

    def cancel(left):
        if not left:
            os._exit(0)
        for call in [later(1000, nothing) for _ in range(100)]:
            call.cancel()
        later(0, cancel, left - 100)

    def fire(left):
        if not left:
            os._exit(0)
        later(0, fire, left - 1)

    later(0, {"cancel": cancel, "fire": fire}[case], calls)
    run()


if __name__ == "__main__":
    main()
