"""
Schedules delayed calls and ends: C{timers.py REACTOR CASE CALLS}. What two runs with different
numbers of calls take, subtracted, is that of the calls alone.

C{cancel} schedules calls and cancels them, a hundred at a time. C{once} does so one at a time, and
C{live} too, with 10,000 other calls pending. C{due} schedules a hundred calls that are due, which
the next turn makes. C{fire} has a call that schedules the next one.

With C{-} for CALLS, it reads numbers of calls from its input, and answers each with the seconds of
CPU that the calls took.
"""

import os
import sys
import time

from echo_server import install


def main():
    kind, case, calls = sys.argv[1:]
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

    def begin():
        if calls != "-":
            later(0, run_case, int(calls))
            return
        number = int(sys.stdin.readline() or 0)
        later(0, run_case, number, time.process_time())

    def end(started):
        if started is None:
            os._exit(0)
        print(time.process_time() - started, flush=True)
        begin()

    def cancel(left, started=None):
        if not left:
            return end(started)
        for call in [later(1000, nothing) for _ in range(100)]:
            call.cancel()
        later(0, cancel, left - 100, started)

    def once(left, started=None):
        for _ in range(left):
            later(1000, nothing).cancel()
        end(started)

    def due(left, started=None):
        if not left:
            return end(started)
        for _ in range(99):
            later(0, nothing)
        later(0, due, left - 100, started)

    def fire(left, started=None):
        if not left:
            return end(started)
        later(0, fire, left - 1, started)

    run_case = {"cancel": cancel, "once": once, "live": once, "due": due, "fire": fire}[case]
    if case == "live":
        pending = [later(500 + place, nothing) for place in range(10_000)]
    begin()
    run()


if __name__ == "__main__":
    main()
