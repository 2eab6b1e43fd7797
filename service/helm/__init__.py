"""All writes to a server's release, through pyhelm3, which nothing else imports.

The real side of `operations.interfaces.Releases`: one helm process a write, under the server's Lease. May use `kube`,
`servers` and what is below them.
"""
