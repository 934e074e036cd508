-- Gives the roles of roles.sql their passwords, from files. For psql, as the image of PostgreSQL runs it once for a new
-- database (deploy/compose.yaml); psql reads the files itself, so that no password is in an environment or a command.

\set owner `cat /run/secrets/owner.password`
\set writer `cat /run/secrets/writer.password`
\set reader `cat /run/secrets/reader.password`

-- what fails is logged with its text
SET log_min_error_statement = 'panic';
ALTER ROLE aggregator_owner PASSWORD :'owner';
ALTER ROLE aggregator_writer PASSWORD :'writer';
ALTER ROLE aggregator_reader PASSWORD :'reader';
