"""Forward passes over rows in batches that memory holds: losses, texts, and what they cost."""
