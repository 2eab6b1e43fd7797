"""What a server is: its names, its desired state, and what its objects say about its actual state.

Pure: it reads only the chart's own files, and makes no requests. It may import `configfile`, and `kube` for Kubernetes'
types, quantities and times.
"""
