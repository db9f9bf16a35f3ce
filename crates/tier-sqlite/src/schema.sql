-- Format 1. One rowid table holds the entries, value last, so that metadata is read without
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

-- Sums kept by triggers, whoever writes, so that opening and reporting never scan.
CREATE TABLE totals (
    source       TEXT    NOT NULL PRIMARY KEY,
    entries      INTEGER NOT NULL,
    raw_bytes    INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER entries_inserted AFTER INSERT ON entries BEGIN
    INSERT INTO totals VALUES (new.source, 1, new.raw_len, length(new.value))
    ON CONFLICT (source) DO UPDATE SET
        entries = entries + 1,
        raw_bytes = raw_bytes + excluded.raw_bytes,
        stored_bytes = stored_bytes + excluded.stored_bytes;
END;

CREATE TRIGGER entries_updated AFTER UPDATE ON entries BEGIN
    UPDATE totals SET
        entries = entries - 1,
        raw_bytes = raw_bytes - old.raw_len,
        stored_bytes = stored_bytes - length(old.value)
    WHERE source = old.source;
    INSERT INTO totals VALUES (new.source, 1, new.raw_len, length(new.value))
    ON CONFLICT (source) DO UPDATE SET
        entries = entries + 1,
        raw_bytes = raw_bytes + excluded.raw_bytes,
        stored_bytes = stored_bytes + excluded.stored_bytes;
END;

CREATE TRIGGER entries_deleted AFTER DELETE ON entries BEGIN
    UPDATE totals SET
        entries = entries - 1,
        raw_bytes = raw_bytes - old.raw_len,
        stored_bytes = stored_bytes - length(old.value)
    WHERE source = old.source;
    DELETE FROM entry_tags WHERE entry = old.id;
END;
