"""The Kubernetes API: requests over kept-alive connections, watches, Leases, quantities and times.

The only package that uses the Kubernetes client, and only for its configuration and credentials. It knows nothing about
game servers, and may import `errors` only.
"""
