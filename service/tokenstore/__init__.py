"""The tokens that Kubernetes keeps: the operator's, and those that the API has given out. Knows no Flask."""
