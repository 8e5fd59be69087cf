"""Where the world comes in: clock, tasks, PostgreSQL, the bus, the leader's lease, HTTP in and out, secrets.

Everything above this layer takes what it needs from here as an argument, so that a test can hand it another.
"""
