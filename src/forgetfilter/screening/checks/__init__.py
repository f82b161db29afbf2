"""Whether the scores can be trusted: the safe rows, the scores, and what the safe rows cover."""
