"""`make bench`: the API's times, side by side with direct use of helm and kubectl."""
