"""What the outside talks to: HTTP, WebSocket and pages. Each handler parses, calls one verb of the systems and answers.

access.py      who may do what: the one table, verb x least role        ports.py    what a handler is given, how a route is declared
http.py        all routes, each guarded by its verb                     bulk.py     rows in: POST /events, POST /popularity
events.py      one event, lists, exports                                admin.py    configuration, flush, loops, alerts
pages.py       the pages and their files (site/)                        openapi.py  the OpenAPI document      metrics.py  GET /metrics
session.py     pure: one WebSocket connection's rules                   websocket.py  its socket     hub.py  who is connected
"""
