"""The simple commands of a shell script, and where it is not understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.commands.diagnosis.shell_commands import Command, Redirection, read


def commands(text: str) -> list[Command]:
    script = read(text)
    assert script.lost is None, script.lost
    return script.commands


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b\nc", [["a", "b"], ["c"]]),
        ("a 'b c' \"d $e\" f\\ g $'h\\'i'", [["a", "b c", "d $e", "f g", "h'i"]]),
        ("a \\\n  b # c\nd", [["a", "b"], ["d"]]),
        ('a $(b | c ")") ${d:-$(e)} `f; g`', [["a", '$(b | c ")")', "${d:-$(e)}", "`f; g`"]]),
        ("a $(b # it's\n) $((1 << 3)) $(c <<< d)", [["a", "$(b # it's\n)", "$((1 << 3))", "$(c <<< d)"]]),
        ("if a; then b; else c; fi", [["a"], ["b"], ["c"]]),
        ("for x in 1 2; do a $x; done", [["for", "x", "in", "1", "2"], ["a", "$x"]]),
        ("for ((;;)); do a; done", [["for", "((;;))"], ["a"]]),
        ("case a in b) c ;; (d|e) ;; esac\nf", [["case", "a", "in", "b"], ["c"], ["d"], ["e"], ["f"]]),
        ("f() { a; }\nfunction g { b; }\nfunction h() { c; }", [["a"], ["b"], ["c"]]),
        ("(a; b) && c", [["a"], ["b"], ["c"]]),
        ("cat <<E <<-'F'\na\nE\n\tb\n\tF\nc", [["cat"], ["c"]]),
        ("a#b #c", [["a#b"]]),
        ("(( n = 1 << 3 ))\na", [["(( n = 1 << 3 ))"], ["a"]]),
        ("[[ a && ( b || c < d ) ]] && e", [["[[", "a", "&&", "(", "b", "||", "c", "<", "d", ")", "]]"], ["e"]]),
        ("x=(a 'b c')\ndeclare -a y=(')')\nd", [[], ["declare", "-a", "y=(')')"], ["d"]]),
        ("a > >(b -c) < <(d)\ne <(f g)", [["a"], ["e", "<(f g)"]]),
        ("", []),
    ],
)
def test_commands_are_told_apart(text: str, expected: list[list[str]]) -> None:
    assert [list(command.words) for command in commands(text)] == expected


def test_what_stands_around_a_command() -> None:
    one, two, three, four = commands("A=1 B='x y' a >log 2>&1 | b\n(c) &\nif d; then :; fi")[:4]
    assert (one.assignments, one.in_pipeline, one.is_certain) == ({"A": "1", "B": "x y"}, True, True)
    assert one.redirections == (Redirection(">", "log"), Redirection("2>&", "1"))
    assert two.in_pipeline and two.line == 1
    assert not three.is_certain and three.line == 2
    assert not four.is_certain and four.line == 3


@pytest.mark.parametrize(
    ("text", "is_certain"),
    [
        ("a", True),
        ("b; a", True),
        ("b & a", True),
        ("b && c; a", True),
        ("if b; then c; fi\na", True),
        ("f() { b; }; a", True),
        ("(b)\na", True),
        ("case b in c) d; esac; a", True),
        ("b && a", False),
        ("b ||\n  a", False),
        ("{ b; } && a", False),
        ("{ a; }", False),
        ("! { a; }", False),
        ("if a; then b; fi", False),
        ("if b; then a; fi", False),
        ("until b; do a; done", False),
        ("case b in c) a; esac", False),
        ("f() { a; }", False),
        ("f()\n(\n  a\n)", False),
        ("function f\n{\n  a\n}", False),
    ],
)
def test_a_command_knows_whether_it_surely_runs(text: str, is_certain: bool) -> None:
    (command,) = (command for command in commands(text) if command.words == ("a",))
    assert command.is_certain is is_certain


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a\nif b; then\n  c", 2, "no end of then"),
        ("a\nfor b in c; do d\nfi", 3, "fi closes nothing"),
        ("a\n}", 2, "} closes nothing"),
        ("a )", 1, ") closes nothing"),
        ("then a", 1, "then closes nothing"),
        ("a\nb 'c\nd", 2, "no end of '"),
        ("a\nb $(c\nd", 2, "no end of ("),
        ("a <<E\nb", 2, "no end of the here document E"),
        ("x=$(a <<E\nE\n)", 1, "a here document in an expansion"),
        ("a\n&& b", 2, "&& follows nothing"),
        ("a;;", 1, "a case is not understood"),
        ("a &&\n", 2, "the script ends too early"),
        ("{ a; } b", 1, "b is not understood"),
        ("if a; then fi", 1, "fi is not understood"),
        ("a (b)", 1, "( is not understood"),
        ("case a in\nb\nesac", 2, "a case is not understood"),
        ("foreach a (b)\n  c\nend", 1, "foreach is not understood"),
        ("exec() { a; }", 1, "exec is a function"),
        ("[[ a\nb", 1, "no end of [["),
        ("f() a", 1, "no end of f"),
        ("a\n" * 5000, 4001, "the script is too long"),
        ("a\n" + "$(" * 100_000, 2, "expansions in expansions, too deep"),
    ],
)
def test_it_says_where_it_is_lost(text: str, line: int, why: str) -> None:
    lost = read(text).lost
    assert lost is not None
    assert (lost.line, lost.why) == (line, why)


@given(st.text(st.sampled_from(list("ab \n\\'\"$(){}`<>|&;#=![]E")), max_size=60))
def test_whatever_it_is_the_reader_comes_to_an_end(text: str) -> None:
    script = read(text)
    lines = [command.line for command in script.commands] + ([script.lost.line] if script.lost else [])
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)
