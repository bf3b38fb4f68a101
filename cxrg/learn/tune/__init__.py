"""Anatomy-grounded prompt tuning: a few vectors lead a frozen model's attention to the anatomy.

Inspired by Vilouras et al. (arXiv 2506.10633), whose details are not public: a shared soft prefix
and one residual per word of place and finding, learnt from reports and anatomy masks alone.
:mod:`cxrg.learn.tune.run` goes from a configuration to an adapter file.
"""
