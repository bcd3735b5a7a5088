"""
Two tests for C{trial -j2}. Each leaves a note in the folder $MEETING and waits for the note of the
other, so they pass only in two processes at the same time.
"""

import os
import pathlib

from twisted.internet import defer, reactor, task
from twisted.trial.unittest import TestCase


class Meeting(TestCase):
    timeout = 50

    def test_one(self):
        return defer.ensureDeferred(self.meet("one", "other"))

    def test_other(self):
        return defer.ensureDeferred(self.meet("other", "one"))

    async def meet(self, own, other):
        folder = pathlib.Path(os.environ["MEETING"])
        (folder / own).write_text(f"{os.getpid()} {type(reactor).__name__}")
        while not (folder / other).exists():
            await task.deferLater(reactor, 0.01)
