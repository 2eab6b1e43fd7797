"""`make bench`: what the API costs, side by side with helm and kubectl by hand."""
