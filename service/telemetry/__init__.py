"""Log lines and metrics of the process. This package imports nothing else of the service."""
