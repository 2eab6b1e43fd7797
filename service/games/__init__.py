"""The games that can be hosted, each in a folder, and the operator's own values for servers.

Everything is read from files and checked when the service starts. It may import `servers` and the layers below, but
makes no requests to Kubernetes.
"""
