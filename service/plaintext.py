"""What a game's text must not bring to its readers, in logs and in the answers of commands. Pure."""

TURNING = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
"""What turns the direction of text around, or begins a line within a line: as a part of a regular expression's set."""
