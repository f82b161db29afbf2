"""What lies on disk: the run folder, its stages, what is read back, the report."""
