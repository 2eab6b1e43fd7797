"""Gives customers SFTP access to the disks of this node's game servers.

The agent watches Kubernetes and keeps three things up to date: the users and keys that sshd reads, a chroot with a bind
mount for each disk, and an EndpointSlice for each server whose disk is on this node. The agent runs as root, and
customers control what is in their folders. So it never opens, lists or changes anything inside them. sshd does all work
on files, in a chroot, as the game's own uid.
"""
