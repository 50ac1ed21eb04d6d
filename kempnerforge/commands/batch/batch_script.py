"""A batch script: its `#SBATCH` lines read as sbatch reads them, set and added; its command put in."""

from __future__ import annotations

import re
from typing import NamedTuple

from . import sbatch_options
from .sbatch_options import OPPOSITES, Option

_DIRECTIVE = "#SBATCH"
#: What isspace(3) takes for a space.
_SPACES = " \t\n\v\f\r"
#: No script that a person wrote has more options, or longer lines of them (letters): what has is not read on.
_MOST_OPTIONS, _LONGEST_LINE = 2000, 16_000


class Directive(NamedTuple):
    """An option on a `#SBATCH` line.

    Attributes:
        line: number of that line, from 1.
        option: the option.
    """

    line: int
    option: Option


class BadDirective(NamedTuple):
    """Words on a `#SBATCH` line that sbatch would stop at, or at which we do."""

    line: int
    text: str
    #: sbatch does; otherwise it is too much for us, and we cannot tell what comes behind it.
    stops: bool = True


class BatchScript:
    """The text of a script, in lines without their ends.

    Args:
        text: all of it.
    """

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")

    @property
    def text(self) -> str:
        """The whole script."""
        return "\n".join(self.lines)

    @property
    def interpreter(self) -> str:
        """What the first line names, without its folder: bash, python3 …; empty: it has no such line."""
        if not self.lines[0].startswith("#!"):
            return ""
        words = self.lines[0][2:].split()
        if words and words[0].endswith("/env"):
            words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return words[0].rpartition("/")[2] if words else ""

    @property
    def header(self) -> int:
        """How many lines come before the first command: sbatch reads no directive behind it."""
        for number, line in enumerate(self.lines):
            if line.strip() and not line.lstrip().startswith("#"):
                return number
        return len(self.lines)

    def directives(self, version: str = "") -> tuple[list[Directive], list[BadDirective]]:
        """Return all options of the header in their order, and what sbatch could not read as one.

        Args:
            version: of Slurm, like 24.11.5; empty: not known.
        """
        keeps_blanks = keeps_blank_behind_backslash(version)
        found: list[Directive] = []
        bad: list[BadDirective] = []
        for number, line in enumerate(self.lines[: self.header], 1):
            if line.startswith(_DIRECTIVE):
                if len(line) > _LONGEST_LINE or len(found) + len(bad) > _MOST_OPTIONS:
                    bad.append(BadDirective(number, "there are too many options", stops=False))
                    break
                words = split_directive(line.removeprefix(_DIRECTIVE), keeps_blanks=keeps_blanks)
                if words is None:
                    bad.append(BadDirective(number, "a quote is not closed"))
                    continue
                options, others = sbatch_options.parse(words)
                found += [Directive(number, option) for option in options]
                bad += [BadDirective(number, f"{word!r} is no option") for word in others]
        return found, bad

    def set(self, option: Option) -> None:
        """Give an option its value: where the header has it, else on a new line behind its last directive."""
        last = 0
        mine = {option.name, OPPOSITES.get(option.name, option.name)}
        done = False
        for number, line in enumerate(self.lines[: self.header]):
            if not line.startswith(_DIRECTIVE):
                continue
            last = number
            words = split_directive(line.removeprefix(_DIRECTIVE)) or []
            options, _ = sbatch_options.parse(words)
            if mine & {given.name for given in options}:
                kept = [given for given in options if given.name not in mine] + ([] if done else [option])
                self.lines[number] = directive_line(kept)
                done = True
        if not done:
            self.lines.insert(last + 1, directive_line([option]))
        self.lines = [line for line in self.lines if line != _DIRECTIVE]

    def put_command(self, words: list[str]) -> None:
        """Put a command where the script has `"$@"`."""
        arguments = " ".join(quote_word(word) for word in words)
        self.lines = [
            line.replace('"$@"', arguments) if not line.lstrip().startswith("#") else line for line in self.lines
        ]


def directive_line(options: list[Option]) -> str:
    """Return a line with these options, each one word to sbatch."""
    return " ".join([_DIRECTIVE, *(_quote_for_sbatch(str(option)) for option in options)])


def _quote_for_sbatch(word: str) -> str:
    """Return a word as `#SBATCH` lines quote it: see `split_directive`."""
    if re.fullmatch(r"[^\s\"'\\#]+", word):
        return word
    escaped = re.sub(r'(["\\])', r"\\\1", word)
    return f'"{escaped}"'


def keeps_blank_behind_backslash(version: str) -> bool:
    """Return whether a Slurm's sbatch does: 22.05 takes both for the end of a word; seen on 24.11 and 26.05."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (24, 11)


def split_directive(text: str, *, keeps_blanks: bool = False) -> list[str] | None:
    """Return the words behind `#SBATCH` as sbatch splits them; None: a quote is not closed (seen on 22.05).

    Both kinds of quotes join, in both a backslash keeps the next character, and an unquoted `#` ends the line, also in
    the middle of a word. An empty word ends the line, too.

    Args:
        keeps_blanks: outside quotes a backslash keeps a blank in its word, too (`keeps_blank_behind_backslash`).
    """
    words: list[str] = []
    word: list[str] = []
    in_word, quote = False, ""
    rest = iter(text)
    for letter in rest:
        kept = next(rest, "") if letter == "\\" else ""
        if kept and (quote or keeps_blanks or kept not in _SPACES):
            in_word = True
            word.append(kept)
        elif quote and letter != quote:
            word.append(letter)
        elif letter in "\"'":
            quote, in_word = ("" if quote else letter), True
        elif letter == "#":
            break
        elif letter in _SPACES or kept:
            if in_word and not word:
                return words
            words += ["".join(word)] if in_word else []
            word, in_word = [], False
        elif letter != "\\":
            in_word = True
            word.append(letter)
    if quote:
        return None
    return [*words, "".join(word)] if word else words


# --- quoting for the shell -----------------------------------------------------------------------

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
#: What single quotes keep, and neither shellcheck nor a reader stumbles over.
_SIMPLE = re.compile(r"[A-Za-z0-9_@%+=:,./ ()\[\]{}<>|&;*?!~^#\"-]*")
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quote_word(word: str) -> str:
    """Return a word as bash reads it back, on one line and in UTF-8, whatever bytes it has.

    Args:
        word: as in sys.argv, where bytes that are no UTF-8 are surrogates.
    """
    if _PLAIN.fullmatch(word):
        return word
    if _SIMPLE.fullmatch(word):
        return f"'{word}'"
    return f"$'{''.join(map(_escape, word))}'"


def _escape(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter.isascii() and letter.isprintable():
        return letter
    if letter.isalpha():
        return letter
    # Bytes that are no UTF-8, control characters, and what only looks like a quote or a space.
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
