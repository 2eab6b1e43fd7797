"""Gives the customers of this node's game servers their disks over SFTP.

The agent watches Kubernetes and keeps three things in step with it: the users and keys that sshd reads, a
chroot with a bind mount for each disk, and an EndpointSlice for each server whose disk is on this node.
It never opens, lists or changes anything inside a customer's folder: it runs as root, and whatever is in
there is the customer's to shape. All work on files is sshd's, in a chroot, as the game's own uid.
"""
