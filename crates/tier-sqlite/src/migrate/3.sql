-- From format 2: entries may refer to dictionaries, and sums are kept by codec and dictionary; the
-- journal and the latest stamp are kept where a commit writes fewer pages.
DROP TRIGGER entries_deleted;
ALTER TABLE entries ADD COLUMN dictionary INTEGER NOT NULL DEFAULT 0;

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

DROP TABLE totals;
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
INSERT INTO totals
    -- A damaged row may have anything in its columns.
    SELECT source, codec, 0, count(*),
        sum(CASE WHEN raw_len BETWEEN 0 AND 1099511627776 THEN raw_len ELSE 0 END),
        sum(coalesce(length(value), 0)), 0
    FROM entries WHERE typeof(source) = 'text' AND typeof(codec) = 'integer'
    GROUP BY source, codec;
INSERT INTO totals VALUES ('', 0, 0, 0, 0, 0, (SELECT coalesce(max(stamp), 0) FROM latest_stamp))
    ON CONFLICT (source, codec, dictionary) DO UPDATE SET latest_stamp = excluded.latest_stamp;
DROP TABLE latest_stamp;

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

-- Who follows it has not opened the file yet.
DROP TABLE journal;
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
