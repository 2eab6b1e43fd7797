"""What the product remembers of its own, in bounded records in Kubernetes."""
