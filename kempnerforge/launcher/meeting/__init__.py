"""Where kforge-run and the processes below it meet: who is there, and how each gets the notice."""
