"""Webhooks: what the API keeps of them, how they are signed, which addresses they may reach, and one try to deliver.

`controller/deliver.py` decides when to try.
"""
