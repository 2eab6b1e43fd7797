"""What happened to the servers: derived from the cluster's objects, kept in a bounded log."""
