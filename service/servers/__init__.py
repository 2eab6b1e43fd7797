"""What a server is: its names, what is wanted of it, and what its objects say about it.

Pure: it reads no more than the chart's own files, and asks nobody. May use `kube` for what Kubernetes' types,
quantities and times look like, and `configfile`.
"""
