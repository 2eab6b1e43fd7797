"""What the process tells of itself: log lines and metrics.

Others call it; it asks nobody.
"""
