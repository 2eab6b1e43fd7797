"""What all HTTP calls share: checks before each call, strict parsing of bodies, and errors as problems.

This package knows Flask but no game servers: `hooks.register` gets the function that finds a server.
"""
