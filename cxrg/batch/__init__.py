"""Many images in one run: what is to be done, who does it, and what is done already.

`cxrg.batch.task` has the values that travel, `cxrg.batch.work` does one image, an engine
(`cxrg.batch.engine`, `cxrg.batch.devices`) decides where, `cxrg.batch.ledger` remembers, and
`cxrg.batch.run` drives them. `cxrg.batch.sources` makes tasks of what the user names.
"""
