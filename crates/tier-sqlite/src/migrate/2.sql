-- From format 1: sums are raised by who stores; uses, journal, leases and the mark are new.
DROP TRIGGER entries_inserted;
DROP TRIGGER entries_updated;
DROP TRIGGER entries_deleted;

-- When entries were last used, in Unix seconds: apart from them, so that noting it writes few pages.
CREATE TABLE uses (
    entry   INTEGER PRIMARY KEY,
    used_at INTEGER NOT NULL
) STRICT;
CREATE INDEX uses_by_time ON uses (used_at);

CREATE TRIGGER entries_deleted AFTER DELETE ON entries BEGIN
    -- What was stored in the same transaction may not have been added yet. A damaged row may have
    -- anything in its columns.
    INSERT INTO totals VALUES (
        old.source, -1,
        CASE WHEN typeof(old.raw_len) = 'integer' AND old.raw_len BETWEEN 0 AND 1099511627776
            THEN -old.raw_len ELSE 0 END,
        -coalesce(length(old.value), 0))
    ON CONFLICT (source) DO UPDATE SET
        entries = entries + excluded.entries,
        raw_bytes = raw_bytes + excluded.raw_bytes,
        stored_bytes = stored_bytes + excluded.stored_bytes;
    DELETE FROM entry_tags WHERE entry = old.id;
    DELETE FROM uses WHERE entry = old.id;
END;

-- What other processes are to know of, for a while.
CREATE TABLE journal (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    node   INTEGER NOT NULL,                      -- whose change it is: a random number
    kind   INTEGER NOT NULL,                      -- as in barriers; 16: these keys were stored
    name   TEXT    NOT NULL,                      -- keys: one a line
    tag    TEXT    NOT NULL,
    effect INTEGER NOT NULL,
    stamp  INTEGER NOT NULL
) STRICT;

-- Who is loading a key, so that no other process does.
CREATE TABLE leases (
    key   TEXT    NOT NULL PRIMARY KEY,
    owner INTEGER NOT NULL,                       -- a random number
    until INTEGER NOT NULL                        -- Unix milliseconds
) STRICT, WITHOUT ROWID;

-- Says what this is to whoever looks into it, and when its first page is damaged.
CREATE TABLE about (
    text TEXT NOT NULL
) STRICT;
INSERT INTO about VALUES ('This file is a cache that Larder keeps. Losing it loses time only.');

INSERT INTO uses SELECT id, loaded_at / 1000 FROM entries;
