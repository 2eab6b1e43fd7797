"""Disks on the real cluster: their sizes, growth, copies, and what becomes of them after their servers."""
