"""The simple commands of a shell script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.commands.diagnosis.shell_commands import Redirection, read


def words(text: str) -> list[list[str]]:
    return [list(command.words) for command in read(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b\nc", [["a", "b"], ["c"]]),
        ("a 'b c' \"d $e\" f\\ g $'h\\'i'", [["a", "b c", "d $e", "f g", "h'i"]]),
        ("a \\\n  b # c\nd", [["a", "b"], ["d"]]),
        ('a $(b | c ")") ${d:-$(e)} `f; g`', [["a", '$(b | c ")")', "${d:-$(e)}", "`f; g`"]]),
        ("if a; then b; else c; fi", [["a"], ["b"], ["c"]]),
        ("for x in 1 2; do a $x; done", [["for", "x", "in", "1", "2"], ["a", "$x"]]),
        ("f() { a; }\nfunction g { b; }\nc", [["a"], ["b"], ["c"]]),
        ("(a; b) && c", [["a"], ["b"], ["c"]]),
        ("cat <<E <<-'F'\na\nE\n\tb\n\tF\nc", [["cat"], ["c"]]),
        ("a#b #c", [["a#b"]]),
        ("(( n = 1 << 3 ))\na", [["(( n = 1 << 3 ))"], ["a"]]),
        ("x=$(cat <<E\nit's\nE\n)\na", [[], ["a"]]),
        ("x=(a 'b c')\nd", [[], ["d"]]),
        ("a > >(b -c) < <(d)\ne <(f g)", [["a"], ["e", "<(f g)"]]),
        ("", []),
    ],
)
def test_commands_are_told_apart(text: str, expected: list[list[str]]) -> None:
    assert words(text) == expected


def test_what_stands_around_a_command() -> None:
    one, two, three, four = read("A=1 B='x y' a >log 2>&1 | b\n(c) &\nif d; then :; fi")[:4]
    assert (one.assignments, one.in_pipeline, one.is_certain) == ({"A": "1", "B": "x y"}, True, True)
    assert one.redirections == (Redirection(">", "log"), Redirection("2>&", "1"))
    assert two.in_pipeline and two.line == 1
    assert three.in_subshell and not three.is_certain and three.line == 2
    assert not four.is_certain and four.line == 3


@pytest.mark.parametrize(
    ("text", "in_subshell"),
    [
        ("{ a; } | tee", True),
        ("{ a; } >x | tee", True),
        ("{ a; } & wait", True),
        ("yes | { a; }", True),
        ("if b; then a; fi | tee", True),
        ("for x in 1 2; do a; done &", True),
        ("f() { a; }; f | tee", True),
        ("f() { a; }\nf &", True),
        ("function f { a; }\n( f )", True),
        ("f() { a; }\nx=$(f)", True),
        ("f() { a; }\nf", False),
        ("{ a; }\nb | tee", False),
        ("if b; then a; fi && c", False),
        ("f() { a; }\necho f | tee", False),
    ],
)
def test_a_command_knows_that_what_is_around_it_is_another_process(text: str, in_subshell: bool) -> None:
    (command,) = (command for command in read(text) if command.words == ("a",))
    assert command.in_subshell is in_subshell


@given(st.text(st.sampled_from(list("ab \n\\'\"$(){}`<>|&;#=!E")), max_size=60))
def test_whatever_it_is_the_reader_comes_to_an_end(text: str) -> None:
    lines = [command.line for command in read(text)]
    assert lines == sorted(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)


def test_expansions_nested_without_end_are_given_up() -> None:
    assert words("a\n" + "$(" * 100_000) == [["a"]]
