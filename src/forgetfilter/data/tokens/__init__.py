"""Rows to tokens: conversations, chat templates, and which tokens carry loss."""
