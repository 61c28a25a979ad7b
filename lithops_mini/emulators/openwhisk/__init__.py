"""A local OpenWhisk: its REST API, and actions that run in containers or processes by the platform's own contract."""
