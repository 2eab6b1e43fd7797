"""What one says to a game, and how it holds its world still."""
