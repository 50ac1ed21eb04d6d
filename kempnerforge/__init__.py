"""kforge-run and its two sides: see ``kempnerforge.resilience`` for what training code imports."""
