"""What games write: the lines of their logs, and those who follow them. It knows neither Flask nor gunicorn."""
