"""The way to the database: operations of schema `api`, over a pool of connections or over REST."""
