"""What is computed of rows in one state of the model: divergences, rates of loss, likeness."""
