"""Studies: many strategies, data sets and seeds, and the result of each."""
