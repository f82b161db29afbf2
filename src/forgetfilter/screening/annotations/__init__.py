"""What is told of rows beside their scores: a second opinion, described harm, evidence, tokens."""
