"""sbatch's options: their names (sbatch(1), 22.05 to 25.05), and the values of those that decide over a run."""

from __future__ import annotations

import collections
import re
from typing import NamedTuple

from ...launcher.surroundings import DEFAULT_LEAD
from ..trouble import Trouble


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Options with a value, by their short form; the others are below.
SHORT = {
    "a": "array",
    "A": "account",
    "B": "extra-node-info",
    "b": "begin",
    "C": "constraint",
    "c": "cpus-per-task",
    "D": "chdir",
    "d": "dependency",
    "e": "error",
    "F": "nodefile",
    "G": "gpus",
    "i": "input",
    "J": "job-name",
    "L": "licenses",
    "M": "clusters",
    "m": "distribution",
    "N": "nodes",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "S": "core-spec",
    "t": "time",
    "w": "nodelist",
    "x": "exclude",
}
#: Options with a value that have no short form.
LONG_ONLY = _names("""
    acctg-freq batch bb bbf cluster-constraint comment container container-id cores-per-socket cpu-freq cpus-per-gpu
    deadline delay-boot export export-file extra gid gpu-bind gpu-freq gpus-per-node gpus-per-socket gpus-per-task gres
    gres-flags hint mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network ntasks-per-core
    ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode power prefer priority profile reservation segment signal
    sockets-per-node switches thread-spec threads-per-core time-min tmp tres-bind tres-per-task uid wckey wrap
""")
#: Options that are there or not, by their short form.
SHORT_FLAGS = {"H": "hold", "O": "overcommit", "Q": "quiet", "s": "oversubscribe", "v": "verbose", "W": "wait"}
#: Options that are there or not, and have no short form.
FLAGS = _names("""
    contiguous external help ignore-pbs no-requeue parsable reboot requeue spread-job stepmgr test-only usage
    use-min-nodes version
""")
#: Options whose value may be left out, so that it can only follow a "=", or the short letter at once.
OPTIONAL_VALUE = frozenset({"exclusive", "get-user-env", "nice", "no-kill", "propagate"})
SHORT_OPTIONAL = {"k": "no-kill"}
#: Other names of the same option.
SYNONYMS = {"tasks-per-node": "ntasks-per-node", "workdir": "chdir", "share": "oversubscribe"}

#: Of these the last one given counts.
OPPOSITES = {"requeue": "no-requeue", "no-requeue": "requeue"}
#: What a script cannot say, or must not: they ask something of sbatch itself.
NOT_IN_A_SCRIPT = frozenset({"help", "parsable", "quiet", "test-only", "usage", "verbose", "version", "wait", "wrap"})

_WITH_VALUE = LONG_ONLY | set(SHORT.values())
KNOWN = _WITH_VALUE | FLAGS | OPTIONAL_VALUE | set(SHORT_FLAGS.values()) | set(SYNONYMS)

#: The signals that sbatch knows by their names.
_SIGNALS = _names("HUP INT QUIT ABRT KILL ALRM TERM USR1 USR2 URG CONT STOP TSTP TTIN TTOU")
#: The largest lead that sbatch takes (s).
LONGEST_LEAD = 65535


class Option(NamedTuple):
    """One option as it was given.

    Attributes:
        name: its long name, without dashes.
        value: None: it has none.
    """

    name: str
    value: str | None = None

    def __str__(self) -> str:
        return f"--{self.name}" if self.value is None else f"--{self.name}={self.value}"


def long_name(name: str) -> str:
    """Return the option that a name means, which may be cut short as long as it is unique (getopt_long(3))."""
    if name not in KNOWN:
        meant = {known for known in KNOWN if known.startswith(name)} if name else set()
        name = meant.pop() if len(meant) == 1 else name
    return SYNONYMS.get(name, name)


def parse(words: list[str]) -> tuple[list[Option], list[str]]:
    """Return the options in a list of words, as sbatch reads them, and the words that are none."""
    options: list[Option] = []
    others: list[str] = []
    rest = collections.deque(words)
    while rest:
        word = rest.popleft()
        if word.startswith("--") and word != "--":
            given, has_value, value = word[2:].partition("=")
            name = long_name(given)
            if has_value:
                options.append(Option(name, value))
            elif name in _WITH_VALUE and rest:
                options.append(Option(name, rest.popleft()))
            else:
                options.append(Option(name))
        elif word.startswith("-") and word not in ("-", "--"):
            options += _cluster(word[1:], rest, others)
        else:
            others.append(word)
    return options, others


def _cluster(letters: str, rest: collections.deque[str], others: list[str]) -> list[Option]:
    """Return the options in what follows one dash: `-Ht5` is `--hold --time=5`."""
    found = []
    for at, letter in enumerate(letters):
        if letter in SHORT_FLAGS:
            found.append(Option(SHORT_FLAGS[letter]))
        elif letter in SHORT_OPTIONAL:
            return [*found, Option(SHORT_OPTIONAL[letter], letters[at + 1 :] or None)]
        elif letter in SHORT:
            value = letters[at + 1 :] or (rest.popleft() if rest else None)
            return [*found, Option(SHORT[letter], value)]
        else:
            others.append(f"-{letters[at:]}")
            return found
    return found


# --- values ------------------------------------------------------------------------------------


def minutes_and_more(value: str) -> float:
    """Return a time limit in seconds, infinite for none.

    `MINUTES`, `MINUTES:SECONDS`, `HOURS:MINUTES:SECONDS`, `DAYS-HOURS[:MINUTES[:SECONDS]]` (sbatch(1)); sbatch takes
    any beginning of "infinite" or "unlimited", "-1" and "0" for none.

    Raises:
        Trouble: it is none of these.
    """
    text = value.strip().lower()
    if text in {"0", "-1"} or (text and ("infinite".startswith(text) or "unlimited".startswith(text))):
        return float("inf")
    number = r"(\d{1,9})"
    found = re.fullmatch(
        rf"(?:{number}-{number}(?::{number}(?::{number})?)?|{number}(?::{number}(?::{number})?)?)", text
    )
    if found is None:
        raise Trouble(f"--time={value} is not a time limit", "like 90 (minutes), 24:00:00 or 2-12:00:00")
    days, hours, minutes, seconds, first, second, third = (int(part or 0) for part in found.groups())
    if found[1] is None:
        if found[7] is not None:
            hours, minutes, seconds = first, second, third
        else:
            minutes, seconds = first, second
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


class Lead(NamedTuple):
    """What ``--signal=[{R|B}:]SIGNAL[@SECONDS]`` asks for.

    Attributes:
        batch: it goes to the batch process (``B:``).
        signal: its name without SIG, or its number.
        seconds: before the time limit.
    """

    batch: bool
    signal: str
    seconds: int

    @property
    def is_notice(self) -> bool:
        """Whether it is the signal after which kforge-run requeues."""
        return self.signal in {"USR1", "10"}

    @property
    def is_term(self) -> bool:
        """Whether it is what a person sends as well, and kforge-run takes for the time limit if it comes when due."""
        return self.batch and self.signal in {"TERM", "15"}


def why_no_notice(value: str) -> str | None:
    """Return why kforge-run would not requeue after what ``--signal`` asks for, or not surely; None: it would.

    Raises:
        Trouble: sbatch would not take it.
    """
    asked = lead(value)
    if not asked.batch:
        return f"--signal={value} without B: does not reach the batch process, which is kforge-run"
    if asked.is_term:
        return f"{asked.signal} is taken for the time limit if it comes when it is due, and a person's then as well"
    if not asked.is_notice:
        return f"kforge-run does not requeue after {asked.signal}, which a person may have sent"
    return None


def lead(value: str) -> Lead:
    """Return what a value of ``--signal`` means.

    Raises:
        Trouble: sbatch would not take it.
    """
    found = re.fullmatch(r"(?:([RB]{1,2}):)?(?:SIG)?(\w+)(?:@(\d{1,9}))?", value.strip().upper())
    if found is None or not (found[2] in _SIGNALS or found[2].isdecimal()):
        raise Trouble(f"--signal={value} cannot be understood", "like --signal=B:USR1@120")
    seconds = int(found[3]) if found[3] else DEFAULT_LEAD
    if seconds > LONGEST_LEAD:
        raise Trouble(f"--signal={value}: sbatch takes {LONGEST_LEAD} s at most", "like --signal=B:USR1@120")
    return Lead("B" in (found[1] or ""), found[2], seconds)
