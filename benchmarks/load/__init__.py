"""The load: programs that make requests and check the answers, the model server, and wrk and pgbench."""
