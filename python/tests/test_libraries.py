"""
Libraries that choose a reactor in ways of their own: Scrapy by a setting, autobahn by a name.
"""

from __future__ import annotations

import subprocess
import sys
from unittest import TestCase, main

from ropewalk_test import BACKENDS, HERE, kill, program

REACTOR = "ropewalk.reactor.RopewalkReactor"
ASYNCIO_REACTOR = "ropewalk.asyncioreactor.AsyncioRopewalkReactor"


class Scrapy(TestCase):
    def test_a_crawl_of_400_pages(self) -> None:
        """Each page is fetched once, with the reactor of the setting or of `python -m ropewalk`."""
        for backend in BACKENDS:
            command = [sys.executable, "-m", "ropewalk", "--backend", backend, str(HERE / "programs/pages.py")]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self.addCleanup(kill, server)
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            for chosen in (REACTOR, ASYNCIO_REACTOR):
                with self.subTest(backend=backend, reactor=chosen):
                    crawled = program(["crawl.py", port, chosen], ROPEWALK_BACKEND=backend)
                    name = chosen.rsplit(".", 1)[1]
                    self.assertEqual(crawled.stdout, f"400 400 0 {name}\n", crawled.stderr)
                    self.assertEqual(crawled.stderr, "")


class Autobahn(TestCase):
    def test_the_reactor_that_is_chosen_by_its_name(self) -> None:
        code = (
            "from autobahn.twisted import choosereactor\n"
            "print(type(choosereactor.install_reactor(explicit_reactor='ropewalk')).__name__)"
        )
        chosen = program(["-c", code])
        self.assertEqual(chosen.stdout, "RopewalkReactor\n", chosen.stderr)


if __name__ == "__main__":
    main()
