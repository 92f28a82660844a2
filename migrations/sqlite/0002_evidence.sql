-- What looking for evidence needs: every filter of `outgate log` finds its rows by an index, whatever is common and
-- whatever is rare in a store.
DROP INDEX records_host;
DROP INDEX records_action;
DROP INDEX records_reason;
CREATE INDEX records_host   ON records (domain, host) WHERE host IS NOT NULL;
CREATE INDEX records_agent  ON records (agent)  WHERE agent IS NOT NULL;
CREATE INDEX records_class  ON records (class)  WHERE class IS NOT NULL;
CREATE INDEX records_action ON records (action) WHERE action IS NOT NULL;
CREATE INDEX records_reason ON records (reason) WHERE reason IS NOT NULL;
CREATE INDEX records_event  ON records (time)   WHERE kind = 'event';
-- Whether numbers and times go up together.
CREATE INDEX records_jump   ON records (time)
    WHERE kind = 'event' AND instr(record, '"event":"clock_jumped"') > 0;

-- Which decisions have a finding of a kind, of their own or of their outcome. Kept by the triggers below, so that a
-- batch of records stays one statement.
CREATE TABLE found (
    kind INTEGER NOT NULL,  -- position in Finding::KINDS
    seq  INTEGER NOT NULL,  -- of the decision
    PRIMARY KEY (kind, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE finding_kinds (kind INTEGER PRIMARY KEY) STRICT;
WITH RECURSIVE kinds (kind) AS (SELECT 0 UNION ALL SELECT kind + 1 FROM kinds WHERE kind < 31)
INSERT INTO finding_kinds SELECT kind FROM kinds;

CREATE TRIGGER records_found AFTER INSERT ON records WHEN NEW.findings <> 0 BEGIN
    INSERT OR IGNORE INTO found
    SELECT kind, coalesce(NEW.decision, NEW.seq) FROM finding_kinds WHERE NEW.findings & (1 << kind);
END;
CREATE TRIGGER records_lost AFTER DELETE ON records WHEN OLD.findings <> 0 BEGIN
    DELETE FROM found WHERE seq = coalesce(OLD.decision, OLD.seq)
        AND kind IN (SELECT kind FROM finding_kinds WHERE OLD.findings & (1 << kind));
END;
INSERT OR IGNORE INTO found
SELECT k.kind, coalesce(r.decision, r.seq) FROM records r JOIN finding_kinds k ON r.findings & (1 << k.kind)
WHERE r.findings <> 0;

-- When the end of an agent's time was recorded.
ALTER TABLE agents ADD COLUMN expired INTEGER;
-- The service of the model that was asked last.
ALTER TABLE sessions ADD COLUMN provider TEXT;
-- `pruned` in `meta`: the signed stub on which the first record left follows.

-- What the policies said that were in force, by the digest that decisions carry.
CREATE TABLE policies (
    digest TEXT PRIMARY KEY,
    text   TEXT NOT NULL
) STRICT;
