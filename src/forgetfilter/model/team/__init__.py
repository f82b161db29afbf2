"""Other processes, or workers of a Ray cluster, which do what process 0 asks for."""
