"""Everything about sshd: its users, host keys and log, its connections, and limits on passwords and connections.

The rest of the agent decides which server's disk is on this node; this package is how customers reach it.
"""
