"""Adapters: small files that change what a model attends to.

A file's content shows its kind: vectors learnt by ``cxrg tune``, textual inversion (new words for
the text encoder) or LoRA (low-rank changes of weights). Only safetensors are read. The adapter is
part of the model's identity, so results with and without it are never confused.
"""
