"""Many rows in bounded memory: held in files, seen in parts, read and named one by one."""
