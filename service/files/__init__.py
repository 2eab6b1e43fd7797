"""Customers' access to their servers' files: SFTP accounts, and their passwords and keys.

It implements `operations.interfaces.Accounts`. The agent (`agent/disk_agent`) serves the files. It may import `kube`,
`servers` and the layers below them.
"""
