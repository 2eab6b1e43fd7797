"""The HTTP calls, one module per resource: they read the request, call an operation and build the answer.

URLs are defined here; what a call does is in `operations`. Only `app` imports this package.
"""
