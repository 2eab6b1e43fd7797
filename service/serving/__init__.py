"""How gunicorn serves the application: one process of many threads, and how that ends.

The one package that knows gunicorn. Its process forks, and holds no application itself: what it needs of `web` is
imported in the worker.
"""
