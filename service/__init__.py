"""A REST API that hosts game servers on Kubernetes, each one a Helm release."""
