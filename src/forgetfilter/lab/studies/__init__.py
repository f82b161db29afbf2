"""Studies: many strategies, data sets and seeds, and what became of each."""
