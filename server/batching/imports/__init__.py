"""Member imports: a durable queue of jobs in PostgreSQL, and workers that page members of a source into lists.

plan (pure decisions), claims and store (SQL of workers, SQL of whoever asks), queue (claimer, lanes, loops), heart (heartbeat
thread), batch (one page of an import); provider, files and vault are where members and keys come from.
"""
