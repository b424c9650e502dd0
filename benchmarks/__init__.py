"""Load scripts, and the reference programs that they are compared with."""
