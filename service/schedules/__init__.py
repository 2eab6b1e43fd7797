"""Schedules of servers: when they are due, what they are, and how their runs go. Pure."""
