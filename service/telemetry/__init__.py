"""Log lines and metrics of the process. This package imports no other package of the service."""
