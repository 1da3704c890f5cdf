-- The study, as last agreed on. One row.
CREATE TABLE study (
    name       TEXT    NOT NULL,
    seed       TEXT    NOT NULL,               -- unsigned 64 bits, in decimal
    metric     TEXT    NOT NULL,               -- what is optimised
    direction  TEXT    NOT NULL CHECK (direction IN ('maximize', 'minimize')),
    epochs     INTEGER NOT NULL,               -- full length of a trial
    spec       TEXT    NOT NULL,               -- the whole study, JSON
    program    TEXT    NOT NULL,               -- version that made the database
    created_ms INTEGER NOT NULL                -- milliseconds since 1970, as everywhere
) STRICT;

-- The truth: all rows of trials can be rebuilt from it. Append-only (see the triggers).
CREATE TABLE event (
    seq  INTEGER PRIMARY KEY,                  -- 1, 2, 3, ... without gaps
    kind TEXT NOT NULL,
    body TEXT NOT NULL                         -- JSON
) STRICT;
CREATE TRIGGER event_is_final BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER event_stays BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;

-- Each `hpsearch run` (or library session) on this study.
CREATE TABLE run (
    run        INTEGER PRIMARY KEY,
    started_ms INTEGER NOT NULL,
    seconds    REAL    NOT NULL,               -- so far
    ended      TEXT,                           -- NULL: going on, or killed
    pid        INTEGER NOT NULL,
    host       TEXT    NOT NULL,
    program    TEXT    NOT NULL,
    workers    INTEGER NOT NULL,
    device     TEXT    NOT NULL
) STRICT;
