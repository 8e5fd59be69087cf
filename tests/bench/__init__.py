"""The benches: what the product costs, beside what else could have been used, in one run on one machine.

`make bench` runs all of them, `make bench ONLY=engine` one suite, `make bench-profile` shows where a flush spends its time.
To add one: write a function that takes a `Context` and yields `Row`s, and name it in BENCHES of a file bench_*.py that
`__main__.SUITES` knows. pytest collects none of it; test_*.py here test the frame itself and that every rival is exact.
"""
