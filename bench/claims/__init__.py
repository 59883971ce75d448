"""What papers claim of optimizers, tried at small scale: ``python -m bench.claims NAME``.

A claim is a module with `measure`, which returns everything that was measured, `table`, which says it in a few lines, and
`draw`, which makes the picture; `cli` names them and writes JSON and picture to ``bench/results/claim-NAME.*``. Where a claim
does not show, the result says so: it is kept as it came out.
"""
