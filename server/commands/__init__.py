"""The command line, a module per group. `python -m server` and the console script `batchcast` are the same.

    running.py    serve, demo                       start a server in this process
    working.py    worker                            the lanes of the imports in a process of their own
    jobs.py       imports ...                       jobs, the queue, lists
    credentials.py  credentials ...                 providers' API keys, never on the command line
    schedules.py  schedules ...                     businesses, batches, runs, tiers and intervals, retries
    importing.py  events import                     a file of events, mapped, in batches
    replaying.py  events replay                     a log of RSVPs or check-ins as popularity, at x times real speed
    events.py     events list, show, delete, export
    operating.py  stats, force-batch, loops, config
    load.py       load                              drive a server with real connections, check every digest
    whatif.py     what-if                           what other settings would cost, tried without sending anything
    watching.py   watch                             the ranked list, live, in a terminal
    access.py     token create, rotate              on the machine of the server
    backup.py     backup, restore, upgrade          likewise
    journal.py    journal list, show, replay        what was recorded, from its files
    telling.py    schema, doctor                    what there is to know
    calling.py    how all of them talk to a running server: HTTP with a token, errors as sentences
    asking.py     the options they share

Every command but serve, worker, demo, token, backup, restore, upgrade, journal, schema and doctor only talks HTTP or WebSocket to a
running server, so that what a command can do a script can do.
Exit codes: 0 done, 1 something was refused, failed or diverged, 2 wrong usage or no server.
"""
