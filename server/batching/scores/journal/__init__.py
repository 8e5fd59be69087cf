"""The journal: what decided about frames, written down in the order in which it did, and played again to the byte.

    recorder.py   the hooks: notes of the engine's thread and of the event loop, in one bounded queue
    journal.py    the loop `journal`: writes what waits, begins and ends files, stops itself rather than hold anybody up
    encoding.py   notes as records: who and what is named once, then numbered
    records.py    PURE: the records, as values and as bytes
    blocks.py     PURE: records in compressed blocks with checksums; where a torn file ends
    checkpoint.py the world at a file's beginning, and back
    files.py      the folder: names, the bound of all files, the one that is written
    reader.py     a file as a header, a world and records
    replay.py     the same frames again, compared
    policy.py histories.py simulate.py   the same inputs under another interval, size, threshold: what would be sent, how old counters were

A file begins with a checkpoint and is whole by itself: an incident becomes a test by copying one file.
"""
