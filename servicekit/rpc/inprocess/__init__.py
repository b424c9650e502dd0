"""gRPC without a wire, for parts that share a process."""
