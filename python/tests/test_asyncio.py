"""
The reactor with an event loop of asyncio beside it.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from unittest import TestCase, main

from ropewalk.asyncioreactor import AsyncioRopewalkReactor
from ropewalk_test import BACKENDS, program

LINES = [
    "True True",
    "stream 1000000",
    "timer fired",
    "gather ['slept', 'slept']",
    "deferred slept",
    "thread done",
    "future filled",
    "child (b'hello\\n', None)",
    "signal True",
    "readers []",
]


class Asyncio(TestCase):
    def test_both_libraries_in_one_program(self) -> None:
        for backend in BACKENDS:
            for arguments, end in [([], ["result"]), (["stop"], ["cancelled", "CancelledError"])]:
                with self.subTest(backend=backend, arguments=arguments):
                    ran = program(["asyncio_beside_twisted.py", *arguments], ROPEWALK_BACKEND=backend)
                    self.assertEqual(ran.stdout.splitlines(), LINES + end, ran.stderr)
                    self.assertEqual(ran.stderr, "")

    def test_the_selector_is_one_of_the_library(self) -> None:
        """Registers, modifies and finds descriptors as `selectors` documents."""
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                reactor = AsyncioRopewalkReactor(backend)
                loop = reactor._asyncioEventloop
                selector = loop._selector
                reads, writes = os.pipe()
                key = selector.register(reads, selectors.EVENT_READ, "data")
                self.assertEqual((key.fd, key.events, key.data), (reads, selectors.EVENT_READ, "data"))
                self.assertRaises(KeyError, selector.register, reads, selectors.EVENT_READ)
                self.assertEqual(selector.get_key(reads), key)
                self.assertIn(reads, selector.get_map())
                self.assertEqual(selector.select(0), [])
                os.write(writes, b"x")
                # It is level-triggered.
                for _ in range(2):
                    self.assertEqual(selector.select(None), [(key, selectors.EVENT_READ)])
                other = selector.register(writes, selectors.EVENT_READ)
                other = selector.modify(writes, selectors.EVENT_WRITE, "other")
                self.assertEqual(dict(selector.select(1))[other], selectors.EVENT_WRITE)
                self.assertEqual(reactor.getReaders() + reactor.getWriters(), [])
                self.assertEqual(reactor.removeAll(), [])
                self.assertEqual(selector.unregister(reads), key)
                self.assertRaises(KeyError, selector.unregister, reads)
                self.assertRaises(KeyError, selector.get_key, reads)
                self.assertRaises(ValueError, selector.register, -1, selectors.EVENT_READ)
                os.close(writes)
                self.assertEqual(selector.unregister(writes), other)
                os.close(reads)
                loop.close()
                asyncio.set_event_loop(None)


if __name__ == "__main__":
    main()
