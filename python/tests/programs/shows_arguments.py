"""
Prints its arguments and its reactor.
"""

import sys

if __name__ == "__main__":
    from twisted.internet import reactor

    print(type(reactor).__name__, sys.argv[1:])
