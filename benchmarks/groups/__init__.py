"""What `make bench` measures, one group of rows a module."""
