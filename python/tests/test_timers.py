"""
Delayed calls: what Twisted's own tests of C{IReactorTime} leave open.
"""

from __future__ import annotations

import inspect
import math
import re
from fractions import Fraction
from typing import Any
from unittest import main, mock

from zope.interface.verify import verifyObject

from twisted.internet import base, error, interfaces

from ropewalk.reactor import RopewalkReactor
from ropewalk_test import ReactorCase


class Timers(ReactorCase):
    def test_a_call_has_the_attributes_of_twisteds(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            def function(*args: Any, **kw: Any) -> None:
                self.trouble = None if (args, kw) == ((1,), {"b": 2}) else AssertionError(f"{args}, {kw}")

            call = reactor.callLater(0.01, function, 1, b=2)
            self.assertTrue(verifyObject(interfaces.IDelayedCall, call))
            self.assertEqual((call.func, call.args, call.kw), (function, (1,), {"b": 2}))
            self.assertEqual((call.called, call.cancelled, call.creator), (0, 0, None))
            self.assertEqual(call.getTime(), call.time)
            self.assertAlmostEqual(call.getTime(), reactor.seconds() + 0.01, delta=0.01)
            self.assertRegex(repr(call), r"^<DelayedCall 0x\w+ \[-?[\d.e-]+s\] called=0 cancelled=0 .*function\(1, b=2\)>$")
            call.cancel()
            self.assertRegex(repr(call), r"called=0 cancelled=1>$")
            self.assertRaises(AttributeError, lambda: call.func)
            self.assertRaises(error.AlreadyCancelled, call.cancel)
            again = reactor.callLater(0.01, function, 1, b=2)
            reactor.callLater(0.02, self.guarded(reactor, self.checkCalled), reactor, again)

        self.each(body)

    def checkCalled(self, reactor: RopewalkReactor, call: Any) -> None:
        self.assertEqual((call.active(), call.called), (False, 1))
        for request in (call.cancel, lambda: call.reset(1), lambda: call.delay(1)):
            self.assertRaises(error.AlreadyCalled, request)
        reactor.stop()

    def test_delays_that_are_no_delays(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            for wrong in (-1, -0.001, math.nan):
                self.assertRaises(AssertionError, reactor.callLater, wrong, lambda: None)
            self.assertRaises(TypeError, reactor.callLater, "1", lambda: None)
            for long in (10**30, math.inf, 2**63):
                far = reactor.callLater(long, lambda: None)
                self.assertTrue(far.active())
                far.reset(long)
                far.delay(long)
                far.cancel()
            sooner = reactor.callLater(1000, reactor.stop)
            sooner.delay(-2000)

        self.each(body)

    def test_arguments_are_bound_as_those_of_twisteds(self) -> None:
        """Each call has the same outcome on a clock of Twisted's, texts of errors included."""

        def outcome(clock: Any, args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
            try:
                call = clock.callLater(*args, **kw)
            except (AssertionError, TypeError) as e:
                return type(e), re.sub(r"^\w+\.(callLater\(\))", r"\1", str(e))
            call.cancel()
            return call.active()

        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((), {}),
            ((1,), {}),
            ((), {"delay": 1, "callable": print}),
            ((1,), {"callable": print, "end": ""}),
            ((1, print, 2), {"end": ""}),
            ((1, print), {"delay": 1}),
            ((True, print), {}),
            ((Fraction(1, 2), print), {}),
            ((-1, print), {}),
            ((-0.5, print), {}),
            ((None, print), {}),
        ]

        class Twisted(base.ReactorBase):
            def installWaker(self) -> None:
                pass

        twisted = Twisted()

        def body(reactor: RopewalkReactor) -> None:
            for args, kw in calls:
                with self.subTest(args=args, kw=kw):
                    self.assertEqual(outcome(reactor, args, kw), outcome(twisted, args, kw))
            reactor.callLater(0, reactor.stop)

        self.each(body)

    def test_callLater_is_replaced_as_any_method(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            seen: list[str] = []

            class Subclass(type(reactor)):  # type: ignore[misc]
                def callLater(self, delay: float, *args: Any, **kw: Any) -> Any:
                    seen.append("subclass")
                    return super().callLater(delay, *args, **kw)

            def patched(self: RopewalkReactor, *args: Any) -> str:
                return "class"

            derived = Subclass()
            derived.callLater(1, print).cancel()
            self.assertEqual(seen, ["subclass"])
            with mock.patch.object(RopewalkReactor, "callLater", patched):
                self.assertEqual(reactor.callLater(1, print), "class")
            with mock.patch.object(reactor, "callLater", lambda *args: "instance"):
                self.assertEqual(reactor.callLater(1, print), "instance")
            self.assertEqual(str(inspect.signature(reactor.callLater)), "(delay, callable, *args, **kw)")
            self.assertRaises(AttributeError, RopewalkReactor.callLater, object(), 1, print)
            reactor.callLater(0, reactor.stop)

        self.each(body)

    def test_a_reactor_that_was_not_initialised(self) -> None:
        self.assertRaises(AttributeError, RopewalkReactor.__new__(RopewalkReactor).callLater, 1, print)

    def test_calls_are_listed_in_their_order(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            [limit] = reactor.getDelayedCalls()
            late, early = reactor.callLater(20, lambda: None), reactor.callLater(10, lambda: None)
            self.assertEqual(reactor.getDelayedCalls(), [early, late, limit])
            late.reset(5)
            self.assertEqual(reactor.getDelayedCalls(), [late, early, limit])
            # Twisted's calls have an order of their own, and are equal to themselves alone.
            self.assertEqual(sorted([early, limit, late]), [late, early, limit])
            self.assertEqual((late < early, early <= late, late <= late, late == early), (True, False, True, False))
            self.assertEqual(len({late, early, late}), 2)
            self.assertRaises(TypeError, lambda: late < 5)
            for call in (late, early):
                call.cancel()
            self.assertEqual(reactor.getDelayedCalls(), [limit])
            reactor.callLater(0, reactor.stop)

        self.each(body)

    def test_a_clock_of_the_program(self) -> None:
        """`reactor.seconds` may be replaced on the instance. It tells the time of new calls."""

        def body(reactor: RopewalkReactor) -> None:
            own, reactor.seconds = reactor.seconds, lambda: 100.0
            call = reactor.callLater(5, lambda: None)
            self.assertEqual((call.getTime(), call.seconds()), (105, 100))
            call.delay(2)
            self.assertEqual(call.getTime(), 107)
            call.reset(1)
            self.assertEqual(call.getTime(), 101)
            call.cancel()
            reactor.seconds = own
            call = reactor.callLater(0, reactor.stop)
            self.assertGreater(call.getTime(), 1e9)

        self.each(body)

    def test_a_call_remembers_its_creator(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            base.DelayedCall.debug = True
            try:
                call = reactor.callLater(0, reactor.stop)
            finally:
                base.DelayedCall.debug = False
            self.assertIn("test_timers.py", call.creator[-1])
            self.assertIn("traceback at creation", repr(call))

        self.each(body)

    def test_the_loop_is_not_entered_twice(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            def nested() -> None:
                self.assertRaises(error.ReactorAlreadyRunning, reactor.iterate)
                self.assertRaises(error.ReactorAlreadyRunning, reactor.run)
                reactor.stop()

            reactor.callLater(0, self.guarded(reactor, nested))

        self.each(body)

    def test_iterate_makes_a_turn_outside_of_a_run(self) -> None:
        def body(reactor: RopewalkReactor) -> None:
            seen: list[int] = []
            reactor.callLater(0, seen.append, 1)
            reactor.callFromThread(seen.append, 2)
            while len(seen) < 2:
                reactor.iterate(0.01)
            self.assertEqual(sorted(seen), [1, 2])
            reactor.callLater(0, reactor.stop)

        self.each(body)


if __name__ == "__main__":
    main()
