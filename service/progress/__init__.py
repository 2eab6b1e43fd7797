"""The starts of servers that clients follow."""
