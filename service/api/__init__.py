"""The HTTP calls, one module a resource: what is asked, which operation does it, what is answered.

The path of a URL is here, what it does is in `operations`. May use everything below it; nothing but `app` uses it.
"""
