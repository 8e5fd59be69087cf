"""Batching: everything here that recurs, and how little of it there is to learn.

Outside events only leave a note: a row, a pending entry, a wake. Work happens in turns. A `Loop` (loop.py) owns WHEN a turn
starts and promises that turns of one loop never overlap; a turn is a function that does one bounded slice and says what
became of it, `Turn(taken, done, failed, deferred, more)`, where nothing is lost between the numbers: taken = done + failed +
deferred. A turn that raises is a failed record, not a dead loop.

One record a turn goes to the ledger (ledger.py), and everything anybody wants to know is a fold over these records: history,
totals, metrics, health, and the rules of alerts (alerts.py). Nothing is counted a second time elsewhere. The panel
(panel.py) holds all loops by name; the command line, the HTTP API, the WebSocket and the pages are its verbs in other words.

A loop is code with a cadence. A schedule, a job, a user is a ROW that a loop's turn walks over, never a timer each. The number
of loops does not grow with the number of users.

Inside a turn, by convention and on one screen:

    collect     read what waits: rows under a lease, or what is pending in memory        store.py
    plan        decide, purely: values in, values out, no await, no clock, no chance     plan.py
    act         do what the plan says to the outside world, with time limits             provider.py
    settle      results, cursor and counters in one transaction                          store.py

So that a crash at any line neither loses nor repeats: what was collected and not settled is collected again.

The systems, a folder each with the same file names; none imports another, one that wants another to move leaves it a note:

    scores      live feed           publishes pending popularity, sends each viewer one diff
    imports     member imports      walks the rows of import jobs through a bounded queue
    schedules   global schedules    places businesses on shared runs of the provider, and follows the runs
    tiers       tier pipeline       moves celebrities through the months' batches
    tracking    view tracking       counts the views of clips, and what they earn

How to add a sixth (tests/fundamentals/toy is one, and its test shows all that it has at once):

1. A folder with `plan.py` (pure), `store.py` (SQL as constants, one function each) and `batch.py`, which has the turn and
   `loop(db, clock, record, ...)` that returns its Loop. Tables come by a numbered file in edge/schema.
2. One line where the program is wired: `panel.add(sixth.loop(db, clock, ledger.record))`.
3. What others should be told beyond failing and lateness: a `Rule`, a pure function over records, added to the alerts.

Traps that others fell into: a turn without a bound (say how much at most, and return `more`); a wake that is only sent when
the list was empty (send it each time, it costs nothing); a turn that wants to be called again at a time (it wakes its own loop
at its end, since any turn serves a wake); a count kept beside the records (derive it).
"""
