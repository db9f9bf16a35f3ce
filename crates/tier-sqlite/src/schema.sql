-- Format 3. One rowid table holds the entries, value last, so that metadata is read without
-- walking overflow pages. A row is found by a 64-bit hash of its key, and the key is compared:
-- an index of integers is a third smaller than one of keys, and both read alike. The last column, the
-- dictionary that the codec used or 0, is as SQLite adds it to a table of an earlier format.
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
, dictionary INTEGER NOT NULL DEFAULT 0) STRICT;
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

-- What compression has learnt of sources' documents. One stays while an entry refers to it, and the
-- last of each source for what comes.
CREATE TABLE dictionaries (
    id         INTEGER PRIMARY KEY,               -- as in its content's header
    source     TEXT    NOT NULL,
    version    INTEGER NOT NULL,                  -- counted from 1 for each source
    created_at INTEGER NOT NULL,                  -- Unix milliseconds
    samples    INTEGER NOT NULL,                  -- how many documents it was trained on
    checksum   INTEGER NOT NULL,                  -- xxh3-64 over all of it
    content    BLOB    NOT NULL
) STRICT;

-- Sums, so that opening and reporting never scan: raised by who stores, in the same transaction, and
-- lowered below.
CREATE TABLE totals (
    source       TEXT    NOT NULL,
    codec        INTEGER NOT NULL,
    dictionary   INTEGER NOT NULL,
    entries      INTEGER NOT NULL,
    raw_bytes    INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    latest_stamp INTEGER NOT NULL,                -- in the row of no source, codec and dictionary: a
                                                  -- stamp that no entry and no barrier here exceeds,
                                                  -- or ever did; here, as every commit writes this
                                                  -- page
    PRIMARY KEY (source, codec, dictionary)
) STRICT, WITHOUT ROWID;
INSERT INTO totals VALUES ('', 0, 0, 0, 0, 0, 0);

-- What compressing has cost all processes, noted from time to time.
CREATE TABLE codec_times (
    source       TEXT    NOT NULL,
    codec        INTEGER NOT NULL,
    dictionary   INTEGER NOT NULL,
    packed       INTEGER NOT NULL,
    pack_nanos   INTEGER NOT NULL,
    kept_raw     INTEGER NOT NULL,
    failed       INTEGER NOT NULL,
    unpacked     INTEGER NOT NULL,
    unpack_nanos INTEGER NOT NULL,
    PRIMARY KEY (source, codec, dictionary)
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
        CASE WHEN typeof(old.source) = 'text' THEN old.source ELSE '' END,
        CASE WHEN typeof(old.codec) = 'integer' THEN old.codec ELSE 0 END,
        CASE WHEN typeof(old.dictionary) = 'integer' THEN old.dictionary ELSE 0 END,
        -1,
        CASE WHEN typeof(old.raw_len) = 'integer' AND old.raw_len BETWEEN 0 AND 1099511627776
            THEN -old.raw_len ELSE 0 END,
        -coalesce(length(old.value), 0), 0)
    ON CONFLICT (source, codec, dictionary) DO UPDATE SET
        entries = entries + excluded.entries,
        raw_bytes = raw_bytes + excluded.raw_bytes,
        stored_bytes = stored_bytes + excluded.stored_bytes;
    DELETE FROM entry_tags WHERE entry = old.id;
    DELETE FROM uses WHERE entry = old.id;
END;

-- What other processes are to know of, for a while; the last row is never removed, so that numbers
-- only rise.
CREATE TABLE journal (
    seq    INTEGER PRIMARY KEY,
    node   INTEGER NOT NULL,                      -- whose change it is: a random number
    kind   INTEGER NOT NULL,                      -- as in barriers; 16: these keys were stored; 17:
                                                  -- many were; 18: dictionaries were
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
