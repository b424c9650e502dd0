"""What a good engineer writes by hand, in one process: the programs that the suite is compared with."""
