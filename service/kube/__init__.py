"""Kubernetes' API: requests over kept connections, watches, Leases, quantities.

The one package that knows the Kubernetes client, for its configuration and credentials. Knows no game server, and may
use `errors` alone.
"""
