"""What the cluster has of the servers: one of them read live, or all from memory; and how each stop went.

The real side of `operations.interfaces.Cluster`. May use `kube`, `servers`, and `helm` for what a
release's Secrets say.
"""
