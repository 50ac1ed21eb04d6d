"""The pure middle: what happened goes in, what to do comes out.

Nothing here knows a clock, a process or Slurm: every time is a number on the monotonic clock that the caller read
(s), so that each row of the decision tables is one plain test case.
"""
