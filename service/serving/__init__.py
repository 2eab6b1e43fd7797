"""How gunicorn serves the application: its configuration and its worker.

Only this package knows gunicorn. gunicorn's main process forks and must not load the application, so what is needed
from `web` is imported in the worker.
"""
