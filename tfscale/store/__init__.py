"""Stage store, a folder that several machines share. The folder contains finished stages, checkpoints of unfinished
stages, and prepared corpora.

    URI/stages/<stage>/done/         a finished stage
    URI/stages/<stage>/step-*/       an unfinished stage with one checkpoint
    URI/data/<fingerprint>/done/     a prepared corpus
    URI/leases/<stage>               the lease of the machine that trains a stage (`tfscale.store.lease`)

Each folder `done` or `step-*` is a snapshot (`tfscale.store.snapshot`). The files of a snapshot are named by the
SHA-256 of their content. The manifest of the snapshot lists the original paths of the files and is written last. Once
a snapshot has a manifest, its files never change.

The functions of this package raise StoreError if the store cannot be read or written to. An interrupted upload or
download resumes when it is repeated.
"""
