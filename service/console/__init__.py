"""Commands for a game, by the way in that its folder names."""
