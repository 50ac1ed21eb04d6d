"""The simple commands of a shell script, as far as it is surely understood (POSIX Shell Command Language, 2.9).

It expands nothing and runs nothing. Where it loses its way it says so, and on which line: what comes behind that is not
guessed at. Each letter of a script is read once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

#: Words that open what encloses commands, and those that close it, with the words that come before those.
_OPENING = frozenset({"if", "for", "while", "until", "case", "select", "{"})
_CLOSING = {"fi": ("then", "else"), "done": ("do",), "esac": ("case", "pattern"), "}": ("{",)}
#: Words that go on with what those opened; and words that may stand before any command.
_INSIDE = {"then": ("if", "elif"), "elif": ("then",), "else": ("then",), "do": ("for", "while", "until", "select")}
_LEADING = frozenset({"!", "time"})
#: Of csh's and zsh's grammar, where what they enclose does not end as in a POSIX shell; and the end of no test.
_FOREIGN = frozenset({"foreach", "switch", "goto", "repeat", "]]"})
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\+?=(.*)", re.DOTALL)
#: What may stand before an array's elements: nothing, or a builtin.
_ASSIGNING: tuple[list[str], ...] = ([], ["declare"], ["export"], ["local"], ["readonly"], ["typeset"])
#: Between two words of a line.
_BLANK = re.compile(r"(?:[^\S\n]|\\\n)+")
_EMPTY_LINES = re.compile(r"\s+")
_OPERATOR = re.compile(r"&&|\|\||;;&|;&|;;|\|&|[;&|()]")
#: Operators behind which a command has to follow, and those that follow one.
_GOING_ON = frozenset({"&&", "||", "|", "|&"})
_CONNECTING = _GOING_ON | {";", "&"}
_TEST_OPERATOR = re.compile(r"&&|\|\||[<>()|]")
_REDIRECTION = re.compile(r"(?:\d+|\{\w+\})?(?:&>>|&>|<<<|<<-|<<|<>|<&|>>|>&|>\||<|>)")
#: Letters that mean themselves: in a word, in quotes, and in what is enclosed.
_PLAIN = re.compile(r"[^\s\\'\"$`;&|()<>]+")
_PLAIN_QUOTED = re.compile(r"[^'\"`\\$]+")
_PLAIN_INSIDE = re.compile(r"[^\s\\'\"$`(){}<>#]+")
#: No script that a person wrote has more: a guess, with a lot of room.
_MOST_COMMANDS, _MOST_WORDS = 4000, 40_000


class Redirection(NamedTuple):
    """A redirection, like `>` and `train.log`."""

    operator: str
    target: str


class Command(NamedTuple):
    """One simple command.

    Attributes:
        line: of its first word, from 1.
        words: without their quotes; expansions as they were written.
        assignments: what stands before it, by name.
        redirections: of its input and output.
        before: the operator before it; empty: a line's beginning.
        after: the operator behind it; empty: the line's end.
        is_enclosed: a condition, a loop, a function, a group or a subshell is around it.
    """

    line: int
    words: tuple[str, ...]
    assignments: dict[str, str]
    redirections: tuple[Redirection, ...]
    before: str
    after: str
    is_enclosed: bool

    @property
    def is_certain(self) -> bool:
        """Whether the shell surely runs it once it has come so far."""
        return not self.is_enclosed and self.before not in ("&&", "||")

    @property
    def in_pipeline(self) -> bool:
        """Whether it is connected with another command, and so runs in a process of its own."""
        return self.before in ("|", "|&") or self.after in ("|", "|&")


class Lost(Exception):
    """It is not understood how a script goes on.

    Args:
        line: from where on.
        why: what is there, in some words.
    """

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line
        self.why = why


class Script(NamedTuple):
    """The commands of a script in their order, a function's body where it is written; and where that ends too early."""

    commands: list[Command]
    lost: Lost | None


def read(text: str) -> Script:
    """Read a script.

    Args:
        text: all of it.
    """
    reader = _Reader(text)
    commands: list[Command] = []
    try:
        commands.extend(reader.read())
    except RecursionError:
        return Script(commands, Lost(reader.line, "expansions in expansions, too deep"))
    except Lost as lost:
        return Script(commands, lost)
    return Script(commands, None)


class _Reader:
    def __init__(self, text: str) -> None:
        self.line = 1
        self._text = text
        self._at = 0
        #: The words that opened what is open, and their lines.
        self._open: list[tuple[str, int]] = []
        #: The name of a function whose body has to follow.
        self._function = ""
        #: The last lines of here documents that begin behind this line, and whether tabs may be before those.
        self._here_documents: list[tuple[str, bool]] = []
        self._before = ""
        #: What was open has just been closed: an operator may follow, and no word.
        self._has_closed = False
        #: A command has to follow.
        self._is_expecting = False
        self._commands_left, self._words_left = _MOST_COMMANDS, _MOST_WORDS
        self._start_command()

    def _start_command(self) -> None:
        self._first_line = self.line
        self._words: list[str] = []
        self._assignments: dict[str, str] = {}
        self._redirections: list[Redirection] = []

    def read(self) -> Iterator[Command]:
        """Yield the commands.

        Raises:
            Lost: at what is not understood.
        """
        while self._at < len(self._text):
            if self._text[self._at] == "\n":
                yield from self._end_command("")
                self._advance(1)
                self._skip_here_documents()
                self._skip(_EMPTY_LINES)
            elif self._skip(_BLANK):
                pass
            elif self._text[self._at] == "#":
                self._skip_line()
            elif self._is_in_test():
                self._add_word(self._word() or self._skip(_TEST_OPERATOR))
            elif self._here("<(", ">(") or (self._here("((") and self._may_calculate()):
                self._add_word(self._enclosed())
            elif redirection := self._skip(_REDIRECTION):
                self._redirect(redirection)
            elif operator := _OPERATOR.match(self._text, self._at):
                yield from self._operator(operator[0])
            else:
                self._take(self._word())
        yield from self._end_command("")
        for word, line in self._open:
            raise Lost(line, f"no end of {word}")
        if self._function or self._here_documents or self._is_expecting:
            raise self._lost("the script ends too early")

    # --- letters -----------------------------------------------------------------------------------

    def _lost(self, why: str) -> Lost:
        return Lost(self.line, why)

    def _here(self, *texts: str) -> bool:
        return self._text.startswith(texts, self._at)

    def _advance(self, count: int) -> None:
        self.line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def _letter(self) -> str:
        self._advance(1)
        return self._text[self._at - 1]

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Go past what a pattern matches here, and return that; empty: nothing."""
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._advance(len(found[0]))
        return found[0]

    def _skip_line(self) -> None:
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end

    # --- commands ----------------------------------------------------------------------------------

    def _take(self, word: str) -> None:
        if not self._words and not self._assignments:
            self._first_line = self.line
            ends = word in _CLOSING or word in _INSIDE
            if word in _FOREIGN or (self._is_expecting if ends else self._has_closed):
                raise self._lost(f"{word} is not understood")
            if word in _OPENING:
                self._enter(word)
                # `for x in a b` and `case x in` are read as a command of that name: nothing below looks for them.
                if word in ("if", "while", "until", "{"):
                    return
            elif word in _CLOSING:
                self._leave(word, *_CLOSING[word])
                return
            elif word in _INSIDE:
                self._leave(word, *_INSIDE[word])
                self._enter(word)
                return
            elif word in _LEADING:
                return
        if not self._words and (assignment := _ASSIGNMENT.fullmatch(word)):
            self._spend()
            self._assignments[assignment[1]] = assignment[2]
            return
        if word == "{" and self._words[:1] == ["function"] and len(self._words) == 2 and not self._assignments:
            self._begin_function()
            self._enter("{")
            return
        self._add_word(word)

    def _add_word(self, word: str) -> None:
        if not word and self._is_in_test():
            raise self._lost("no end of [[")
        if not self._words and self._has_closed:
            raise self._lost(f"{word} is not understood")
        self._spend()
        self._words.append(word)

    def _spend(self) -> None:
        self._words_left -= 1
        if self._words_left < 0:
            raise self._lost("the script is too long")

    def _begin_function(self) -> None:
        self._function = self._words[-1]
        if self._function == "exec":
            raise self._lost("exec is a function")
        self._start_command()

    def _enter(self, word: str) -> None:
        self._open.append((word, self.line))
        self._function = ""
        self._has_closed, self._is_expecting = False, True

    def _leave(self, word: str, *opened_by: str) -> None:
        if not self._open or self._open.pop()[0] not in opened_by:
            raise self._lost(f"{word} closes nothing")
        self._has_closed, self._is_expecting = True, False

    def _change(self, before: str, after: str) -> None:
        """Go from a pattern of a case to its commands, or back."""
        word, line = self._open.pop() if self._open else ("", 0)
        if word != before:
            raise self._lost("a case is not understood")
        self._open.append((after, line))

    def _may_calculate(self) -> bool:
        """Whether two parentheses open arithmetic here."""
        return self._words in ([], ["for"]) and not self._assignments

    def _is_in_test(self) -> bool:
        """Whether this is inside `[[ … ]]`, where operators are words."""
        return self._words[:1] == ["[["] and self._words[-1] != "]]"

    def _operator(self, operator: str) -> Iterator[Command]:
        opened_by = self._open[-1][0] if self._open else ""
        follows = self._words or self._assignments or self._redirections or self._has_closed
        if operator == "(" and follows:
            is_name = len(self._words) == 1 + (self._words[:1] == ["function"])
            if not self._here("()") or not is_name or self._assignments or self._redirections:
                raise self._lost("( is not understood")
            self._begin_function()
            self._advance(2)
            return
        if not follows and (operator in _CONNECTING or (operator == ")" and self._is_expecting)):
            raise self._lost(f"{operator} follows nothing")
        yield from self._end_command(operator)
        self._is_expecting = operator in _GOING_ON
        self._advance(len(operator))
        if operator == ")" and opened_by != "case":
            self._leave(")", "(")
        elif operator == "(" and opened_by != "case":
            self._enter("(")
        elif operator == ")" or operator.startswith((";;", ";&")):
            self._change(*("case", "pattern") if operator == ")" else ("pattern", "case"))

    def _end_command(self, operator: str) -> Iterator[Command]:
        has_command = bool(self._words or self._assignments)
        if has_command:
            if self._function or self._is_in_test():
                raise self._lost(f"no end of {self._function or '[['}")
            in_pattern = bool(self._open) and self._open[-1][0] == "case"
            if in_pattern and operator not in ("|", ")") and (operator or self._words[:1] != ["case"]):
                raise self._lost("a case is not understood")
            self._commands_left -= 1
            if self._commands_left < 0:
                raise Lost(self._first_line, "the script is too long")
            yield Command(
                self._first_line,
                tuple(self._words),
                self._assignments,
                tuple(self._redirections),
                self._before,
                operator,
                bool(self._open),
            )
        # Behind an operator and a line's end the list goes on.
        if has_command or operator or self._before not in _GOING_ON:
            self._before = operator
        self._has_closed = False
        self._is_expecting = self._is_expecting and not has_command
        self._start_command()

    def _redirect(self, operator: str) -> None:
        self._spend()
        self._skip(_BLANK)
        target = self._enclosed() if self._here("<(", ">(") else self._word()
        plain = operator.lstrip("0123456789")
        if plain in ("<<", "<<-"):
            self._here_documents.append((target, plain == "<<-"))
        self._redirections.append(Redirection(operator, target))

    def _skip_here_documents(self) -> None:
        first = self.line
        for end, indented in self._here_documents:
            line = None
            while line != end:
                if self._at >= len(self._text):
                    raise Lost(first, f"no end of the here document {end}")
                start = self._at
                self._skip_line()
                line = self._text[start : self._at]
                line = line.lstrip("\t") if indented else line
                if self._at < len(self._text):
                    self._advance(1)
        self._here_documents = []

    # --- words -------------------------------------------------------------------------------------

    def _word(self) -> str:
        word: list[str] = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            if plain := self._skip(_PLAIN):
                word.append(plain)
            elif letter == "(" and word and word[-1].endswith("=") and self._words[:1] in _ASSIGNING:
                word.append(self._enclosed())  # the elements of an array
            elif letter in "\n;&|()<>" or letter.isspace():
                break
            elif letter == "\\":
                self._advance(1)
                escaped = self._letter() if self._at < len(self._text) else ""
                word.append("" if escaped == "\n" else escaped)
            else:
                word.append(self._quoted_or_expanded())
        return "".join(word)

    def _quoted_or_expanded(self) -> str:
        """Return what begins with a quote or a `$`, without quotes; one without a meaning as it is."""
        if self._here("'", '"'):
            return self._quoted()
        if self._here("$'", '$"'):
            self._advance(1)
            return self._quoted(escapes=True)
        if self._here("`"):
            start = self._at
            self._quoted(escapes=True)
            return self._text[start : self._at]
        return self._enclosed() if self._here("$(", "${") else self._letter()

    def _quoted(self, *, escapes: bool = False) -> str:
        quote, line = self._letter(), self.line
        word = []
        while self._at < len(self._text):
            if plain := self._skip(_PLAIN_QUOTED):
                word.append(plain)
            elif self._here(quote):
                self._advance(1)
                return "".join(word)
            elif self._here("\\") and (escapes or quote == '"'):
                self._advance(1)
                word.append(self._text[self._at : self._at + 1])
                self._advance(1)
            elif quote == '"' and self._here("$(", "${", "`"):
                word.append(self._quoted_or_expanded())
            else:
                word.append(self._letter())
        raise Lost(line, f"no end of {quote}")

    def _enclosed(self) -> str:
        """Return `$(…)`, `${…}`, `<(…)`, `((…))` or `(…)`, as it was written."""
        start, line = self._at, self.line
        while not self._here("(", "{"):
            self._advance(1)
        is_arithmetic = self._here("((")
        closing = {"(": ")", "{": "}"}[opening := self._letter()]
        while self._at < len(self._text):
            if self._skip(_PLAIN_INSIDE) or self._skip(_EMPTY_LINES):
                continue
            if self._here(closing):
                self._advance(1)
                return self._text[start : self._at]
            if self._here(opening):
                self._enclosed()
            elif self._here("\\"):
                self._advance(2)
            elif self._here("<<<"):
                self._advance(3)
            elif self._here("<<") and opening == "(" and not is_arithmetic and self._text[start] != "(":
                raise self._lost("a here document in an expansion")
            elif self._here("#") and opening == "(" and self._text[self._at - 1].isspace():
                self._skip_line()
            elif self._here("'", '"', "$", "`"):
                self._quoted_or_expanded()
            else:
                self._advance(1)
        raise Lost(line, f"no end of {opening}")
