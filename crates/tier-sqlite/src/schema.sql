-- Format 2. One rowid table holds the entries, value last, so that metadata is read without
-- walking overflow pages. A row is found by a 64-bit hash of its key, and the key is compared:
-- an index of integers is a third smaller than one of keys, and both read alike.
CREATE TABLE entries (
    id                   INTEGER PRIMARY KEY,
    key_hash             INTEGER NOT NULL UNIQUE, -- xxh3-64 of key, as a signed integer
    key                  TEXT    NOT NULL,
    source               TEXT    NOT NULL,
    as_of                INTEGER NOT NULL,        -- hybrid logical stamp of the load's start
    expires_at           INTEGER NOT NULL,        -- Unix milliseconds; 2^63-1 is never
    stale_until          INTEGER NOT NULL,
    loaded_at            INTEGER NOT NULL,        -- when the load ended
    flags                INTEGER NOT NULL,        -- 1 absent, 2 own lifetime, 4 expired
    version              TEXT,
    etag                 TEXT,
    source_last_modified TEXT,
    content_type         TEXT,
    tags                 TEXT    NOT NULL,        -- one a line
    codec                INTEGER NOT NULL,        -- 0 raw, 1 zlib, 2 zstd
    raw_len              INTEGER NOT NULL,
    checksum             INTEGER NOT NULL,        -- xxh3-64 over key, metadata and stored bytes;
                                                  -- its complement in an expired row
    value                BLOB    NOT NULL
) STRICT;
CREATE INDEX entries_by_source ON entries (source);
CREATE INDEX entries_by_stale_until ON entries (stale_until);

CREATE TABLE entry_tags (
    tag   TEXT    NOT NULL,
    entry INTEGER NOT NULL,
    PRIMARY KEY (tag, entry)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_tags_by_entry ON entry_tags (entry);

-- Invalidations: entries they select that were loaded at or before the stamp are not stored, or as
-- expired.
CREATE TABLE barriers (
    kind   INTEGER NOT NULL,                      -- 0 all, 1 key, 2 prefix, 3 tag, 4 both,
                                                  -- 5 another version of the source
    name   TEXT    NOT NULL,                      -- key, prefix or source; empty without one
    tag    TEXT    NOT NULL,                      -- or version; empty without one
    effect INTEGER NOT NULL,                      -- 0 forget, 1 expire
    stamp  INTEGER NOT NULL,
    PRIMARY KEY (kind, name, tag, effect)
) STRICT, WITHOUT ROWID;
CREATE INDEX barriers_by_stamp ON barriers (stamp);

-- One row: a stamp that no entry and no barrier here exceeds, or ever did.
CREATE TABLE latest_stamp (
    stamp INTEGER NOT NULL
) STRICT;
INSERT INTO latest_stamp VALUES (0);

-- Sums, so that opening and reporting never scan: raised by who stores, in the same transaction, and
-- lowered below.
CREATE TABLE totals (
    source       TEXT    NOT NULL PRIMARY KEY,
    entries      INTEGER NOT NULL,
    raw_bytes    INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

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
