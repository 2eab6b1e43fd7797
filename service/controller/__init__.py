"""What happens without a call. Two pods run it; a Lease makes one of them active."""
