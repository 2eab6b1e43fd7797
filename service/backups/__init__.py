"""Backups: what is kept about them, and the Jobs that make, restore and check them."""
