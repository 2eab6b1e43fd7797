"""The tokens that Kubernetes keeps: the operator's, and those that the API has given out, watched.

The real side of `operations.interfaces.Tokens`. May use `kube`, `tokens` and what is below them.
"""
