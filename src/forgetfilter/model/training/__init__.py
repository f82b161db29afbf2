"""What changes weights: fine-tuning and restoring, their checkpoints, their speed."""
