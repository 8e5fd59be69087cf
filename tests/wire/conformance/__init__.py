"""RFC 6455 and RFC 7692 as rows: what a client says, what the server must answer, how it must end.

Written from the text of the RFCs; every row names its section. `values.py` says what a row is and makes bytes, `running.py`
plays a row on a real server, the other files are the rows. Where the RFC leaves a choice, the row says what this server
does and the name of the row or a comment says that it was a choice. docs/conformance.md has a table of what is covered.
"""
