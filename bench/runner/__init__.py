"""The machinery behind ``python -m bench``; it knows nothing of what it times.

A family of operations (``bench/optim.py`` is the first) describes cases and contenders (``case``); ``rounds`` times
them with the clock of the device (``clock``) beside a plain copy (``copying``) and makes rows (``results``), which
``show`` and ``roofline`` present. ``families`` lists what there is to run.
"""
