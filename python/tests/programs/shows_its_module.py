"""
Prints what it knows of its own module, and what is left of it at the end of the process.
"""

import atexit
import pickle
import sys


class Thing:
    pass


def ended():
    print(__name__, sys.modules["__main__"].Thing is Thing)


atexit.register(ended)
# Python 3.14 makes `__annotations__` on demand.
print(__file__, sys.argv, sys.path[0], sorted(globals().keys() - {"__annotations__"}))
print(__doc__, __package__, __spec__, type(__loader__), __builtins__, __cached__)
print(type(pickle.loads(pickle.dumps(Thing()))) is Thing)
