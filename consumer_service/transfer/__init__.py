"""All tables to a portable file and back, between any two databases (`docs/export.md`).

`tables` says what is transferred, `line_format` how, `line_writer` and `line_reader` do that, `files` is the
compression, `exporter` and `importer` are the work.
"""
