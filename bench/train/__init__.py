"""The main job: train a byte-level GPT on the standard library's sources, once with each optimizer.

``python -m bench.train --help`` lists the options. The files, in the order the data flows: ``corpus`` (text and
batches), ``model`` (the GPT), ``optimizers`` (found by name), ``loop`` (one run), ``agreement`` (do two loss curves
agree), ``report`` and ``picture`` (what is left on disk and on screen), ``cli``.
"""
