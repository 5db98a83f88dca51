"""The losses of the same pairs at many strengths: the table, the run that fills it, the strengths it tries."""
