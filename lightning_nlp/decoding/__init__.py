"""Turning hidden states into text: greedy search, sampling and beam search, batched and cached, for any backbone.

:func:`lightning_nlp.decoding.generate.generate` gives tokens, :func:`~lightning_nlp.decoding.generate.hypotheses` the
n best texts with their scores, :func:`lightning_nlp.decoding.score.score` the log-probabilities of given texts.
"""
