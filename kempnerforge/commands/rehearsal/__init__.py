"""A rehearsal of the notice: a stage to run on, the rehearsal itself, and what it was worth.

    here, as_job ──▶ stage ──▶ rehearse ──▶ verdict ──▶ text

The verdict and the text are pure.
"""
