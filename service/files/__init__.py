"""Customers' access to their server's files: who may log in, and with what.

The real side of `operations.interfaces.Accounts`; what serves the files is the agent, in `agent/disk_agent`. May use
`kube`, `servers` and what is below them.
"""
