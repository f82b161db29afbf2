"""From scores to files, without a model: the rule, what people decided, what that writes."""
