"""How many players are on a server, as its game says."""
