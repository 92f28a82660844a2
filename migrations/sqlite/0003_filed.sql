-- A decision is filed behind its commit: the indexes it is searched by take it up some moments later, many at a time.
-- One row into six indexes is six pages to write; five hundred rows are hardly more.
--
-- `fresh` is 1 for a decision that those indexes do not know yet, and NULL for every other row. Neither takes a byte in
-- the row, so it changes in place.
ALTER TABLE records ADD COLUMN fresh INTEGER;

-- `filed` in `meta`: the record up to which everything is filed. What comes after it is looked through, so it is short.
INSERT INTO meta (name, value) SELECT 'filed', coalesce(max(seq), 0) FROM records;

DROP INDEX records_session;
DROP INDEX records_agent;
DROP INDEX records_class;
DROP INDEX records_host;
DROP INDEX records_action;
DROP INDEX records_reason;
CREATE INDEX records_session ON records (session)      WHERE session IS NOT NULL AND fresh IS NULL;
CREATE INDEX records_agent   ON records (agent)        WHERE agent IS NOT NULL   AND fresh IS NULL;
CREATE INDEX records_class   ON records (class)        WHERE class IS NOT NULL   AND fresh IS NULL;
CREATE INDEX records_host    ON records (domain, host) WHERE host IS NOT NULL    AND fresh IS NULL;
CREATE INDEX records_action  ON records (action)       WHERE action IS NOT NULL  AND fresh IS NULL;
CREATE INDEX records_reason  ON records (reason)       WHERE reason IS NOT NULL  AND fresh IS NULL;
