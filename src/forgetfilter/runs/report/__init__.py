"""The report of a run: one page, and what it shows of which rows."""
