"""The lab's commands, a group a file; light to import."""
