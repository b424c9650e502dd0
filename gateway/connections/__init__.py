"""The connections of clients: HTTP as uvicorn speaks it, and how much of us one client or all of them can hold."""
