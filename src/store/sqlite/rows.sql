CREATE TABLE trial (
    trial       INTEGER PRIMARY KEY,           -- its number, from 0
    state       TEXT    NOT NULL CHECK (state IN ('waiting', 'running', 'paused', 'complete', 'stopped', 'failed')),
    value       REAL,                          -- the objective after the latest epoch; NULL if failed
    epochs      INTEGER NOT NULL DEFAULT 0,    -- epochs on record
    result      REAL,                          -- the objective after the latest finished order: trials are ranked by it
    result_epochs INTEGER NOT NULL DEFAULT 0,  -- after how many epochs that was
    bracket     INTEGER NOT NULL,
    rung        INTEGER,                       -- the rung it was sent to last
    seconds     REAL    NOT NULL DEFAULT 0,    -- of its epochs, each counted once
    params      TEXT    NOT NULL,              -- the configuration as JSON; see trial_param
    issued_ms   INTEGER,                       -- first attempt
    finished_ms INTEGER                        -- latest order done; NULL while another is open
) STRICT;

CREATE TABLE trial_param (
    trial INTEGER NOT NULL REFERENCES trial,
    name  TEXT    NOT NULL,
    value ANY,                                 -- number or text; booleans are 0 and 1
    PRIMARY KEY (trial, name)
) STRICT, WITHOUT ROWID;

-- A contiguous stretch of training of one trial.
CREATE TABLE work_order (
    work_order  INTEGER PRIMARY KEY,
    trial       INTEGER NOT NULL REFERENCES trial,
    from_epoch  INTEGER NOT NULL,
    to_epoch    INTEGER NOT NULL,
    bracket     INTEGER NOT NULL,
    rung        INTEGER,
    outcome     TEXT CHECK (outcome IN ('reached', 'stopped', 'failed')),  -- NULL while open
    at_epoch    INTEGER,
    value       REAL,
    finished_ms INTEGER
) STRICT;
CREATE INDEX work_order_of_trial ON work_order (trial);

-- A try of a worker at an order.
CREATE TABLE attempt (
    work_order INTEGER NOT NULL REFERENCES work_order,
    attempt    INTEGER NOT NULL,
    worker     INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms   INTEGER,
    ended      TEXT,                           -- done, interrupted, or the class of its failure; NULL: going on
    PRIMARY KEY (work_order, attempt)
) STRICT, WITHOUT ROWID;

-- The latest worker of a number: where it ran, and what its results depend on beyond the study.
CREATE TABLE worker (
    worker     INTEGER PRIMARY KEY,
    host       TEXT NOT NULL,
    job        TEXT,                           -- of a batch system
    program    TEXT NOT NULL,                  -- BLAKE3 of the executable
    arithmetic TEXT,
    ready_ms   INTEGER NOT NULL
) STRICT;

CREATE TABLE epoch (
    trial             INTEGER NOT NULL REFERENCES trial,
    epoch             INTEGER NOT NULL,        -- epochs done, from 1
    value             REAL,                    -- the objective; NULL: diverged
    train_loss        REAL,
    seconds           REAL    NOT NULL,
    data_wait_seconds REAL    NOT NULL,
    images            INTEGER NOT NULL,
    work_order        INTEGER NOT NULL,
    attempt           INTEGER NOT NULL,
    reported_ms       INTEGER NOT NULL,
    PRIMARY KEY (trial, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE metric (
    trial INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    name  TEXT    NOT NULL,
    value REAL    NOT NULL,                    -- undefined ones have no row
    PRIMARY KEY (trial, epoch, name)
) STRICT, WITHOUT ROWID;

-- Every attempt that went wrong; final: no further one was made.
CREATE TABLE failure (
    seq        INTEGER PRIMARY KEY,            -- of its event
    trial      INTEGER NOT NULL REFERENCES trial,
    work_order INTEGER NOT NULL,
    attempt    INTEGER,
    class      TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    final      INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL
) STRICT;

-- Results of earlier studies that the sampler knew from the start.
CREATE TABLE earlier_result (
    seq    INTEGER NOT NULL,                   -- of its event
    study  TEXT    NOT NULL,                   -- the earlier study
    trial  INTEGER NOT NULL,                   -- its number there
    epoch  INTEGER NOT NULL,                   -- how long it was trained, in epochs of this study
    value  REAL    NOT NULL,
    params TEXT    NOT NULL,
    PRIMARY KEY (seq, trial)
) STRICT;

-- Configurations put first by hand.
CREATE TABLE enqueued (
    seq    INTEGER PRIMARY KEY,                -- of its event
    params TEXT    NOT NULL,
    at_ms  INTEGER NOT NULL
) STRICT;

-- Checkpoints and predictions, paths relative to the study's folder.
CREATE TABLE file (
    path   TEXT    NOT NULL PRIMARY KEY,
    kind   TEXT    NOT NULL CHECK (kind IN ('checkpoint', 'predictions')),
    trial  INTEGER NOT NULL REFERENCES trial,
    epoch  INTEGER NOT NULL,
    digest TEXT    NOT NULL,                   -- BLAKE3
    bytes  INTEGER NOT NULL,
    kept   INTEGER NOT NULL                    -- 0: no longer needed, deleted
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_file ON file (path) WHERE kept = 1;

-- The metrics of every trial after its latest epoch.
CREATE VIEW final_metric AS
    SELECT t.trial, m.name, m.value
    FROM trial t JOIN metric m ON m.trial = t.trial AND m.epoch = t.epochs;

-- The curve of every trial, objective and metrics.
CREATE VIEW learning_curve AS
    SELECT e.trial, e.epoch, s.metric AS name, e.value FROM epoch e, study s
    UNION
    SELECT trial, epoch, name, value FROM metric;

-- Trials from best to worst: those that are complete or may go on, by their value after the latest epoch, among equals the
-- earlier; then those that were given up, trained longest first. Trials without a value follow, failed ones last.
CREATE VIEW ranking AS
    SELECT row_number() OVER (ORDER BY t.state = 'failed', t.value IS NULL, t.state = 'stopped',
                                       CASE t.state WHEN 'stopped' THEN -t.epochs END,
                                       CASE s.direction WHEN 'maximize' THEN -t.value ELSE t.value END, t.trial) AS place,
           t.trial, t.state, t.value, t.epochs, t.params
    FROM trial t, study s;
