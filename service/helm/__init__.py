"""All writes to a server's release, through pyhelm3, which only this package uses.

It implements `operations.interfaces.Releases`: each write is one helm process, under the server's Lease. It may import
`kube`, `servers` and the layers below them.
"""
