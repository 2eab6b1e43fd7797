"""What all HTTP calls have in common: the gate before them, bodies read strictly, errors as problems.

Knows Flask and no server: what a path's id is about is handed in. May use `tokens` and what is below.
"""
