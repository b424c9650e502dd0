"""Serving and calling rpcs: servers, channels, what surrounds each call, who is calling."""
