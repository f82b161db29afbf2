"""What a screen works with: files and models, opened, checked, and turned into tokens."""
