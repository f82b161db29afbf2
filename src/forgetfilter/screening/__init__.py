"""The method and its commands: screen, decide again, fine-tune."""
