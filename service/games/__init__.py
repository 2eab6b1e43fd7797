"""The games that can be hosted, each a folder, and what an operator sets for them.

Read and checked as a whole at the start, from files alone. May use `servers` and what is below, but not Kubernetes.
"""
