"""Tokens in Kubernetes: the operator's, and those that the API issues. Implements `operations.interfaces.Tokens`."""
