"""The simple commands of a shell script, with their lines: enough of the shell's grammar to see what a job runs.

It expands nothing and never fails: what it cannot follow is read as words (POSIX Shell Command Language, 2.9).
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Words that open and close what they enclose, where a command could begin.
_OPENING = frozenset({"if", "for", "while", "until", "case", "select", "{"})
_CLOSING = frozenset({"fi", "done", "esac", "}"})
#: Words before a command.
_LEADING = frozenset({"then", "else", "elif", "do", "!", "time"})
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\+?=(.*)", re.DOTALL)
_OPERATOR = re.compile(r"&&|\|\||;;&|;&|;;|\|&|[;&|()]")
_REDIRECTION = re.compile(r"(?:\d+|\{\w+\})?(?:&>>|&>|<<<|<<-|<<|<>|<&|>>|>&|>\||<|>)")
#: A here document inside an expansion: one that has an end.
_HERE_DOCUMENT = re.compile(r"<<-?[ \t]*(['\"]?)(\w+)\1(?=[^\n]*\n)")


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


def read(text: str) -> list[Command]:
    """Return the simple commands of a script, in their order; a function's body is where it is written."""
    reader = _Reader(text)
    for command in list(reader.commands):
        called = re.findall(r"\$\(\s*(\w+)", " ".join([*command.words, *command.assignments.values()]))
        if command.words and (command.in_pipeline or command.after == "&" or command.in_subshell):
            called.append(command.words[0])
        for name in called:
            reader.put_in_subshell(*reader.functions.get(name, (0, 0)))
    return reader.commands


def simplify(commands: list[Command]) -> list[Command]:
    """Return commands with what can be known put in: variables that the script sets, scripts for eval and bash -c."""
    known: dict[str, str] = {}
    found: list[Command] = []
    for command in commands:
        if not command.words and command.is_certain:
            known.update(command.assignments)
        words = tuple(part for word in command.words for part in _expanded(word, known))
        found += _inner(command._replace(words=words)) or [command._replace(words=words)]
    return found


def _expanded(word: str, known: dict[str, str]) -> list[str]:
    variable = re.fullmatch(r"\$\{?(\w+)(?:\[@\])?\}?", word)
    if variable is None or variable[1] not in known or "$" in known[variable[1]]:
        return [word]
    return known[variable[1]].strip("()").split()


def _inner(command: Command) -> list[Command]:
    """Return the commands in a script that a command has as its argument; nothing: it has none."""
    words = list(command.words)
    if words[:1] == ["eval"]:
        return [inner._replace(line=command.line) for inner in read(" ".join(words[1:]))]
    is_exec = words[:1] == ["exec"]
    if re.fullmatch(r"(.*/)?(ba|da|z|k)?sh", "".join(words[is_exec:][:1])) and words[is_exec:][1:2] == ["-c"]:
        inside = read("".join(words[is_exec:][2:3]))
        # A shell that is given one command becomes it.
        if is_exec and len(inside) == 1 and inside[0].words[:1] != ("exec",):
            inside = [inside[0]._replace(words=("exec", *inside[0].words))]
        return [inner._replace(line=command.line, in_subshell=not is_exec) for inner in inside]
    return []


class _Compound(NamedTuple):
    """What is open around a command: a group, a loop, a subshell …."""

    word: str
    #: Of its first command, in the list of all.
    start: int
    before: str
    #: The function whose body it is; empty: it is none.
    function: str = ""


class _Reader:
    def __init__(self, text: str) -> None:
        self.commands: list[Command] = []
        #: Of each function the range of its body in `commands`.
        self.functions: dict[str, tuple[int, int]] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._depth: list[_Compound] = []
        self._closed: _Compound | None = None
        self._function = ""
        self._here_documents: list[tuple[str, bool]] = []
        self._before = ""
        self._start_command()
        try:
            self._read()
        except RecursionError:
            pass  # expansions in expansions, a thousand deep: what came before is known

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
            elif letter.isspace() or self._text.startswith("\\\n", self._at):
                self._advance(2 if letter == "\\" else 1)
            elif letter == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._text.startswith(("<(", ">("), self._at) or (
                self._text.startswith("((", self._at) and not self._words
            ):
                self._words.append(self._enclosed("(", ")"))
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
        self._words.append(word)

    def _open(self, word: str) -> None:
        self._depth.append(_Compound(word, len(self.commands), self._before, self._function))
        self._function = ""

    def _close(self) -> None:
        if not self._depth:
            return
        self._closed = self._depth.pop()
        if self._closed.function:
            self.functions[self._closed.function] = (self._closed.start, len(self.commands))
        elif self._closed.before in ("|", "|&"):
            self.put_in_subshell(self._closed.start, len(self.commands))

    def put_in_subshell(self, start: int, end: int) -> None:
        """Note that commands run in a process of their own."""
        for index in range(start, end):
            self.commands[index] = self.commands[index]._replace(in_subshell=True)

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
            if any(compound.word == "(" for compound in self._depth):
                while self._depth[-1].word != "(":
                    self._depth.pop()
                self._close()
        else:
            self._end_command(operator)

    def _end_command(self, operator: str) -> None:
        if self._words or self._assignments:
            self.commands.append(
                Command(
                    self._first_line,
                    tuple(self._words),
                    self._assignments,
                    tuple(self._redirections),
                    self._before,
                    operator,
                    any(compound.word == "(" for compound in self._depth),
                    not self._depth and self._before not in ("&&", "||"),
                )
            )
        elif self._closed is not None and operator in ("|", "|&", "&") and not self._closed.function:
            self.put_in_subshell(self._closed.start, len(self.commands))
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
                stop = self._text.find("\n", self._at)
                stop = len(self._text) if stop < 0 else stop
                line = self._text[self._at : stop]
                self._advance(stop - self._at + 1)
                if (line.lstrip("\t") if indented else line) == end:
                    break
        self._here_documents = []

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
            if document := _HERE_DOCUMENT.match(self._text, self._at):
                end = re.compile(rf"\n\t*{re.escape(document[2])}(?=\n|$)").search(self._text, self._at)
                self._advance((len(self._text) if end is None else end.end()) - self._at)
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
