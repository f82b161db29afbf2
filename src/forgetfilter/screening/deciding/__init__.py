"""From scores to files: the rule, what people decided, what a decision writes."""
