"""`kforge`: what a user does before and after a run. It may use the launcher, which knows nothing of it."""
