"""Reads the cluster: one server live, or all servers from memory. Also records how each stop went.

It implements `operations.interfaces.Cluster`. It may import `kube`, `servers`, and `helm` for what a release's Secrets
say.
"""
