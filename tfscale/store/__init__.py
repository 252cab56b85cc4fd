"""Stage store: finished stages, checkpoints of unfinished stages and prepared corpora in a folder that machines share.

    URI/stages/<stage>/done/         a finished stage
    URI/stages/<stage>/step-*/       an unfinished stage with one checkpoint
    URI/data/<fingerprint>/done/     a prepared corpus
    URI/leases/<stage>               the lease of the machine that trains a stage (`tfscale.store.lease`)

Each folder `done` or `step-*` is a snapshot (`tfscale.store.snapshot`): files that are named by the SHA-256 of their
content, and a manifest with their paths, which is written last. A snapshot never changes once it has a manifest.

The functions of this package raise StoreError if the store cannot be read or written to. An interrupted upload or
download resumes when it is repeated.
"""
