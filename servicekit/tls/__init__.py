"""TLS between processes: certificates, what is made of them, and connections that use them."""
