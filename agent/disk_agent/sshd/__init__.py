"""What is about sshd: its users, its log, its sessions, and who may still connect.

The rest of the agent knows which server's disk is where; this is how customers get at it.
"""
