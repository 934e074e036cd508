"""All tables to a portable file and back, between any two databases (`docs/export.md`).

`tables` says what is transferred, `lines` is the format, `files` the compression, `exporter` and `importer` the work.
"""
