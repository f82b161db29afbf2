"""A file looked through line by line: what is wrong with which value, and where."""
