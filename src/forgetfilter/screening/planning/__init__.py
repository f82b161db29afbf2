"""How long a screen will take and how much memory, before anything is trained."""
