-- Runs after roles.sql, once, when the server makes its database.
\getenv owner OWNER_PASSWORD
\getenv writer WRITER_PASSWORD
\getenv reader READER_PASSWORD
ALTER ROLE aggregator_owner PASSWORD :'owner';
ALTER ROLE aggregator_writer PASSWORD :'writer';
ALTER ROLE aggregator_reader PASSWORD :'reader';
