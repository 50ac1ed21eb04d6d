"""The page: memory that a kforge-run shares with the cooperative processes of its node, a line for each.

A line is eight words of eight bytes. Each is written by one side only, in one store, so that no lock is needed:
``memoryview`` items of format ``Q`` are that (``struct.pack_into`` writes byte by byte, docs/many-ranks.md).
Standard library only, Python 3.8.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable

#: Words of a line, and bytes of a word.
WORDS, WIDTH = 8, 8
#: Lines of a page: more than any node has ranks. What nobody touches takes no memory.
LINES = 4096
SIZE = LINES * WORDS * WIDTH

#: Written by the process: the number of its last poll; under which number and word it waits in a poll; how often it
#: has waited; and which world it is of. By kforge-run: what it asks, and which wait it ends without a stop.
POLLS, WORD, WAITS, LET, TICKET, HEARD, WORLD = range(7)

#: What a word asks: wait at the next poll, stop at this poll when all are there, stop.
HOLD, AT, STOP = 1, 2, 3
#: A poll that never comes: nobody stops.
NEVER = 1 << 54
#: Each registration of a process counts from a multiple of this on, and so never falls behind an earlier one's count.
GENERATION = 1 << 40
_SERIALS = 64
#: Of a word that ranks write without kforge-run.
SERIAL_OF_RANKS = _SERIALS - 1


def word(kind: int, at: int, serial: int) -> int:
    """Return what is asked, as one number.

    Args:
        at: a number of a poll; 0: whatever the number is.
        serial: tells two words apart that say the same.
    """
    return at << 8 | serial % _SERIALS << 2 | kind


def kind_of(word: int) -> int:
    """Return what a word asks; 0: nothing."""
    return word & 3


def at_of(word: int) -> int:
    """Return the number of the poll that a word is about."""
    return word >> 8


def number_of(world: str) -> int:
    """Return a number that stands for a world's name, and is not 0 (FNV-1a, 64 bits)."""
    number = 0xCBF29CE484222325
    for byte in world.encode():
        number = (number ^ byte) * 0x100000001B3 % (1 << 64)
    return number or 1


def newest(words: Iterable[int]) -> int:
    """Return which of the words that stand in lines was written last: one that stops, or by its serial."""
    found = [word for word in words if word]
    stops = [word for word in found if kind_of(word) == STOP]
    if stops or not found:
        return stops[0] if stops else 0
    # Serials begin anew after the last one. What stands at one time is not far apart.
    serials = {word >> 2 & (_SERIALS - 1): word for word in found}
    if max(serials) - min(serials) > _SERIALS // 2:
        serials = {serial: word for serial, word in serials.items() if serial < _SERIALS // 2}
    return serials[max(serials)]


def lines_of(mapped: mmap.mmap) -> memoryview:
    """Return all words of a mapped page, to be read and written one by one."""
    return memoryview(mapped).cast("Q")


def line_of(words: memoryview, number: int) -> memoryview:
    """Return the words of one line."""
    return words[number * WORDS : (number + 1) * WORDS]
