"""A REST API that hosts game servers on Kubernetes, each one a Helm release."""

#: The product's version. `make lint` checks that the charts and the docs name the same.
__version__ = "0.1.0"
