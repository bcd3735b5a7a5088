"""
A test for C{trial --reactor=..}: it waits for a timer, and names its reactor.
"""

from twisted.internet import reactor, task
from twisted.trial.unittest import TestCase


class Timer(TestCase):
    def test_timer(self):
        print(type(reactor).__name__)
        return task.deferLater(reactor, 0.01, lambda: None)
