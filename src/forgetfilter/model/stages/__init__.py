"""The stages that a run keeps: one for each phase, and one for each reading."""
