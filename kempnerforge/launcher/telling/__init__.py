"""What kforge-run tells of a run, and where it is kept: the log, the journal, and files that are ours alone."""
