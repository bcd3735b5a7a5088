"""
Prints the receivers for which native code parses.
"""

from ropewalk import accelerate

print(*accelerate.active())
