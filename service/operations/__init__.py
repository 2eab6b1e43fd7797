"""What the API can do to a server, one function per verb, independent of HTTP.

These functions get the caller's token and the parsed request, and do not know Flask. They reach Kubernetes, Helm, file
access and tokens only through the types in `interfaces.py`, so this package must not import `cluster` or `helm`.
"""
