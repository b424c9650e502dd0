"""Sets the working copy up: packages, generated code, the web app, lock files, a browser for tests."""
