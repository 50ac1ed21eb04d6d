"""The simple commands of a shell script, with their lines: enough of the shell's grammar to see what a job runs.

It expands nothing and never fails: what it cannot follow is read as words (POSIX Shell Command Language, 2.9). Whatever
a script holds, each of its letters is read once, and a budget bounds what is made of them.
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

#: Words that open and close what they enclose, where a command could begin.
_OPENING = frozenset({"if", "for", "while", "until", "case", "select", "{"})
_CLOSING = frozenset({"fi", "done", "esac", "}"})
#: Words before a command.
_LEADING = frozenset({"then", "else", "elif", "do", "!", "time"})
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\+?=(.*)", re.DOTALL)
#: Between two words of a line, or before one: nothing that could end a command that is there.
_BLANK = re.compile(r"(?:[^\S\n]|\\\n)+")
_EMPTY_LINES = re.compile(r"\s+")
_OPERATOR = re.compile(r"&&|\|\||;;&|;&|;;|\|&|[;&|()]")
_REDIRECTION = re.compile(r"(?:\d+|\{\w+\})?(?:&>>|&>|<<<|<<-|<<|<>|<&|>>|>&|>\||<|>)")
#: A here document inside an expansion.
_HERE_DOCUMENT = re.compile(r"<<-?[ \t]*(['\"]?)(\w+)\1")


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
        in_subshell: it runs in a process of its own, between parentheses.
        is_certain: neither a condition nor a loop nor a function is around it.
    """

    line: int
    words: tuple[str, ...]
    assignments: dict[str, str]
    redirections: tuple[Redirection, ...]
    before: str
    after: str
    in_subshell: bool
    is_certain: bool

    @property
    def in_pipeline(self) -> bool:
        """Whether it is connected with another command, and so runs in a process of its own."""
        return self.before in ("|", "|&") or self.after in ("|", "|&")


class Spent(Exception):
    """A budget is used up."""


class Budget:
    """What may be made of a script. No script that a person wrote comes near it; one that does is not judged.

    Attributes:
        spent_on: the line that was too much; 0: none was.
    """

    def __init__(self) -> None:
        self._commands = 4000
        self._words = 40_000
        #: Letters that variables expand to, and that are read once more for eval.
        self._expanded = 1 << 20
        self.spent_on = 0

    def take(self, *, line: int, commands: int = 0, words: int = 0, expanded: int = 0) -> None:
        """Take something off.

        Raises:
            Spent: that is more than there is.
        """
        self._commands -= commands
        self._words -= words
        self._expanded -= expanded
        if min(self._commands, self._words, self._expanded) < 0:
            self.give_up(line)
            raise Spent

    def give_up(self, line: int) -> None:
        """Note the first line that was too much."""
        self.spent_on = self.spent_on or line


def read(text: str, budget: Budget | None = None) -> list[Command]:
    """Return the simple commands of a script, in their order; a function's body is where it is written.

    Args:
        text: all of it.
        budget: when that is used up, the commands so far are returned.
    """
    reader = _Reader(text, budget or Budget())
    called: set[str] = set()
    for command in reader.commands:
        called.update(re.findall(r"\$\(\s*(\w+)", " ".join([*command.words, *command.assignments.values()])))
        if command.words and (command.in_pipeline or command.after == "&" or command.in_subshell):
            called.add(command.words[0])
    return _put_in_subshells(reader.commands, [body for name, body in reader.functions.items() if name in called])


def simplify(commands: list[Command], budget: Budget | None = None) -> list[Command]:
    """Return commands with what can be known put in: variables that the script sets, scripts for eval and bash -c.

    Args:
        commands: of the whole script.
        budget: when that is used up, the commands so far are returned.
    """
    budget = budget or Budget()
    known: dict[str, str] = {}
    found: list[Command] = []
    try:
        for command in commands:
            if not command.words and command.is_certain:
                known.update(command.assignments)
            words = tuple(part for word in command.words for part in _expanded(word, known, command.line, budget))
            command = command._replace(words=words)  # noqa: PLW2901 - it is the same command
            found += _inner(command, budget) or [command]
    except Spent:
        pass  # what was found so far is true; who reads on sees it in the budget
    return found


def _expanded(word: str, known: dict[str, str], line: int, budget: Budget) -> list[str]:
    variable = re.fullmatch(r"\$\{?(\w+)(?:\[@\])?\}?", word)
    if variable is None or variable[1] not in known or "$" in known[variable[1]]:
        return [word]
    value = known[variable[1]]
    budget.take(line=line, expanded=len(value))
    words = value.strip("()").split()
    budget.take(line=line, words=len(words))
    return words


def _inner(command: Command, budget: Budget) -> list[Command]:
    """Return the commands in a script that a command has as its argument; nothing: it has none."""
    words = list(command.words)
    if words[:1] == ["eval"]:
        inside = _read_inside(" ".join(words[1:]), command.line, budget)
        return [inner._replace(line=command.line) for inner in inside]
    is_exec = words[:1] == ["exec"]
    if re.fullmatch(r"(.*/)?(ba|da|z|k)?sh", "".join(words[is_exec:][:1])) and words[is_exec:][1:2] == ["-c"]:
        inside = _read_inside("".join(words[is_exec:][2:3]), command.line, budget)
        # A shell that is given one command becomes it.
        if is_exec and len(inside) == 1 and inside[0].words[:1] != ("exec",):
            inside = [inside[0]._replace(words=("exec", *inside[0].words))]
        return [inner._replace(line=command.line, in_subshell=not is_exec) for inner in inside]
    return []


def _read_inside(text: str, line: int, budget: Budget) -> list[Command]:
    """Return the commands of a script in a script."""
    budget.take(line=line, expanded=len(text))
    already = budget.spent_on
    inside = read(text, budget)
    if budget.spent_on and not already:
        budget.spent_on = line  # and not one of the inner lines
        raise Spent
    return inside


def _put_in_subshells(commands: list[Command], ranges: list[tuple[int, int]]) -> list[Command]:
    """Return commands with those in some ranges noted to run in processes of their own."""
    changes = [0] * (len(commands) + 1)
    for start, end in ranges:
        changes[start] += 1
        changes[end] -= 1
    depths = itertools.accumulate(changes)
    return [one._replace(in_subshell=True) if depth else one for one, depth in zip(commands, depths, strict=False)]


class _Compound(NamedTuple):
    """What is open around a command: a group, a loop, a subshell …."""

    word: str
    #: Of its first command, in the list of all.
    start: int
    before: str
    #: The function whose body it is; empty: it is none.
    function: str = ""


class _Reader:
    def __init__(self, text: str, budget: Budget) -> None:
        self.commands: list[Command] = []
        #: Of each function the range of its body in `commands`.
        self.functions: dict[str, tuple[int, int]] = {}
        self._text = text
        self._last_line_end = text.rfind("\n")
        self._budget = budget
        self._at = 0
        self._line = 1
        self._depth: list[_Compound] = []
        #: How many of them are subshells.
        self._parentheses = 0
        #: What runs in processes of its own, as ranges of `commands`.
        self._subshells: list[tuple[int, int]] = []
        self._closed: _Compound | None = None
        self._function = ""
        self._here_documents: list[tuple[str, bool]] = []
        self._before = ""
        self._start_command()
        try:
            self._read()
        except RecursionError:
            budget.give_up(self._line)  # expansions in expansions, hundreds deep
        except Spent:
            pass
        self.commands = _put_in_subshells(self.commands, self._subshells)

    def _start_command(self) -> None:
        self._first_line = self._line
        self._words: list[str] = []
        self._assignments: dict[str, str] = {}
        self._redirections: list[Redirection] = []

    def _read(self) -> None:
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == "\n":
                self._end_command("")
                self._advance(1)
                self._skip_here_documents()
                if empty := _EMPTY_LINES.match(self._text, self._at):
                    self._advance(len(empty[0]))
            elif blank := _BLANK.match(self._text, self._at):
                self._advance(len(blank[0]))
            elif letter == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._text.startswith(("<(", ">("), self._at) or (
                self._text.startswith("((", self._at) and not self._words
            ):
                self._add_word(self._enclosed("(", ")"))
            elif redirection := _REDIRECTION.match(self._text, self._at):
                self._advance(len(redirection[0]))
                self._redirect(redirection[0])
            elif operator := _OPERATOR.match(self._text, self._at):
                self._operator(operator[0])
                self._advance(len(operator[0]))
            else:
                self._take(self._word())
        self._end_command("")

    def _advance(self, count: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    # --- commands ----------------------------------------------------------------------------------

    def _take(self, word: str) -> None:
        if not self._words and not self._assignments:
            self._first_line = self._line
            if word in _OPENING:
                self._open(word)
                # `for x in a b` and `case x in` are read as a command of that name: nothing below looks for them.
                if word in ("if", "while", "until", "{"):
                    return
            elif word in _CLOSING:
                self._close()
                return
            elif word in _LEADING:
                return
        if not self._words and (assignment := _ASSIGNMENT.fullmatch(word)):
            self._assignments[assignment[1]] = assignment[2]
            return
        if word == "{" and self._words[:1] == ["function"]:
            self._function = self._words[1] if len(self._words) > 1 else ""
            self._start_command()
            self._open("{")
            return
        self._add_word(word)

    def _add_word(self, word: str) -> None:
        self._budget.take(line=self._line, words=1)
        self._words.append(word)

    def _open(self, word: str) -> None:
        self._depth.append(_Compound(word, len(self.commands), self._before, self._function))
        self._parentheses += word == "("
        self._function = ""

    def _close(self) -> None:
        if not self._depth:
            return
        self._closed = self._depth.pop()
        self._parentheses -= self._closed.word == "("
        if self._closed.function:
            self.functions[self._closed.function] = (self._closed.start, len(self.commands))
        elif self._closed.before in ("|", "|&"):
            self._subshells.append((self._closed.start, len(self.commands)))

    def _operator(self, operator: str) -> None:
        if operator == "(":
            # `name()` opens no subshell; its body does not run here, and is in braces.
            if len(self._words) == 1 and self._text[self._at : self._at + 2] == "()":
                self._function = self._words[0]
                self._start_command()
                self._advance(1)
                return
            self._end_command("(")
            self._open("(")
        elif operator == ")":
            self._end_command("")
            if self._parentheses:
                while self._depth[-1].word != "(":
                    self._depth.pop()
                self._close()
        else:
            self._end_command(operator)

    def _end_command(self, operator: str) -> None:
        if self._words or self._assignments:
            self._budget.take(line=self._first_line, commands=1, words=len(self._assignments) + len(self._redirections))
            self.commands.append(
                Command(
                    self._first_line,
                    tuple(self._words),
                    self._assignments,
                    tuple(self._redirections),
                    self._before,
                    operator,
                    self._parentheses > 0,
                    not self._depth and self._before not in ("&&", "||"),
                )
            )
        elif self._closed is not None and operator in ("|", "|&", "&") and not self._closed.function:
            self._subshells.append((self._closed.start, len(self.commands)))
        self._closed = None
        # Behind `|` and a line's end the pipeline goes on.
        if self._words or self._assignments or operator:
            self._before = operator
        self._start_command()

    def _redirect(self, operator: str) -> None:
        while self._at < len(self._text) and self._text[self._at] in " \t":
            self._advance(1)
        if self._text.startswith((">(", "<("), self._at):
            self._redirections.append(Redirection(operator, self._enclosed("(", ")")))
            return
        target = self._word() if self._at < len(self._text) and self._text[self._at] not in "\n;|()" else ""
        plain = operator.lstrip("0123456789")
        if plain in ("<<", "<<-"):
            self._here_documents.append((target, plain == "<<-"))
        self._redirections.append(Redirection(operator, target))

    def _skip_here_documents(self) -> None:
        for end, indented in self._here_documents:
            while self._at < len(self._text):
                line = self._rest_of_line()
                self._advance(len(line) + 1)
                if (line.lstrip("\t") if indented else line) == end:
                    break
        self._here_documents = []

    def _rest_of_line(self) -> str:
        stop = self._text.find("\n", self._at)
        return self._text[self._at : len(self._text) if stop < 0 else stop]

    def _skip_inner_document(self, end: str) -> None:
        """Go to the end of a here document in an expansion: up to the line end behind its last word."""
        self._advance(len(self._rest_of_line()))
        while self._at < len(self._text):
            self._advance(1)
            line = self._rest_of_line()
            self._advance(len(line))
            if line.lstrip("\t") == end:
                break

    # --- words -------------------------------------------------------------------------------------

    def _word(self) -> str:
        word: list[str] = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == "(" and word and word[-1].endswith("="):
                word.append(self._enclosed("(", ")"))  # the elements of an array
                continue
            if letter in " \t\n;&|()<>":
                break
            if letter == "\\":
                escaped = self._text[self._at + 1 : self._at + 2]
                word.append("" if escaped == "\n" else escaped)
                self._advance(2)
            elif letter in "'\"":
                word.append(self._quoted(letter))
            elif letter == "$" and self._text[self._at + 1 : self._at + 2] in ("'", '"'):
                self._advance(1)
                word.append(self._quoted(self._text[self._at], escapes=True))
            elif letter == "`" or self._text.startswith(("$(", "${"), self._at):
                word.append(self._expansion())
            else:
                word.append(letter)
                self._advance(1)
        return "".join(word)

    def _quoted(self, quote: str, *, escapes: bool = False) -> str:
        self._advance(1)
        word = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == quote:
                self._advance(1)
                break
            if letter == "\\" and (escapes or quote == '"'):
                word.append(self._text[self._at + 1 : self._at + 2])
                self._advance(2)
            elif quote == '"' and (letter == "`" or self._text.startswith(("$(", "${"), self._at)):
                word.append(self._expansion())
            else:
                word.append(letter)
                self._advance(1)
        return "".join(word)

    def _expansion(self) -> str:
        """Return `$(…)`, `${…}` or what is in backquotes, as it was written."""
        start = self._at
        if self._text[self._at] == "`":
            self._quoted("`", escapes=True)
            return self._text[start : self._at]
        opening = self._text[self._at + 1]
        closing = {"(": ")", "{": "}"}[opening]
        self._advance(2)
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == closing:
                self._advance(1)
                break
            document = _HERE_DOCUMENT.match(self._text, self._at) if self._at < self._last_line_end else None
            if document is not None and document.end() <= self._last_line_end:
                self._skip_inner_document(document[2])
            elif letter in "'\"":
                self._quoted(letter)
            elif letter == "`" or self._text.startswith(("$(", "${"), self._at):
                self._expansion()
            elif letter == opening:
                self._enclosed(opening, closing)
            else:
                self._advance(2 if letter == "\\" else 1)
        return self._text[start : self._at]

    def _enclosed(self, opening: str, closing: str) -> str:
        """Return what is here up to where the first thing that opens is closed."""
        start, depth = self._at, 0
        while self._at < len(self._text):
            letter = self._text[self._at]
            self._advance(1)
            depth += (letter == opening) - (letter == closing)
            if depth == 0 and letter == closing:
                break
        return self._text[start : self._at]
