"""`make bench-scale`: how the API does with 2,000 servers, on nodes and pods that kwok simulates."""
