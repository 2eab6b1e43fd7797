"""`make bench-scale`: the API with 2,000 servers, on nodes and pods that kwok simulates."""
