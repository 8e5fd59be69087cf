"""The wire: what strangers may send us and what we send them, as pydantic models, and the one place where names change case.

values.py    viewport, location, filters: the parts that messages share
event.py     an event coming in (JSON object -> Upsert) and going out (Event -> JSON bytes)
incoming.py  every WebSocket message a client may send; `parse` maps a bad one to its error code
outgoing.py  every WebSocket message the server sends; hot ones are assembled from bytes, the models are the published schema
schema.py    JSON Schema of all of it, with one full example each
"""
