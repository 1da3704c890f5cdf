-- Studies in PostgreSQL: the tables and views of docs/database.md, each with the study's number in front.
CREATE SCHEMA IF NOT EXISTS hpsearch;

-- The format of these tables. One row.
CREATE TABLE hpsearch.format (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint  NOT NULL,
    id      uuid    NOT NULL DEFAULT gen_random_uuid() -- tells this database from others
);

-- The right to write a study of this name. Whoever takes it raises `number`, and every transaction that writes names the number
-- it has taken: so a writer that lost the right without noticing is refused.
CREATE TABLE hpsearch.claim (
    name     text   PRIMARY KEY,
    number   bigint NOT NULL,                  -- how often it was taken
    writes   bigint NOT NULL,                  -- transactions that wrote
    pid      bigint NOT NULL,                  -- who took it last; 0: given back
    host     text   NOT NULL,
    since_ms bigint NOT NULL,
    seen     timestamptz NOT NULL              -- when its holder wrote last
);

-- The studies, as last agreed on.
CREATE TABLE hpsearch.study (
    study      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text   NOT NULL UNIQUE,
    seed       text   NOT NULL,                -- unsigned 64 bits, in decimal
    metric     text   NOT NULL,                -- what is optimised
    direction  text   NOT NULL CHECK (direction IN ('maximize', 'minimize')),
    epochs     bigint NOT NULL,                -- full length of a trial
    spec       text   NOT NULL,                -- the whole study, JSON
    program    text   NOT NULL,                -- version that made it
    created_ms bigint NOT NULL                 -- milliseconds since 1970, as everywhere
);

-- Whatever is final: its tables refuse to change, and lose rows only with a study that has no results (Claim::remove).
CREATE FUNCTION hpsearch.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('hpsearch.removing', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '%', TG_ARGV[0];
END $$;

-- The truth: all rows of trials can be rebuilt from it.
CREATE TABLE hpsearch.event (
    study bigint NOT NULL REFERENCES hpsearch.study ON DELETE CASCADE,
    seq   bigint NOT NULL,                     -- 1, 2, 3, ... without gaps
    kind  text   NOT NULL,
    body  text   NOT NULL,                     -- JSON
    PRIMARY KEY (study, seq)
);
CREATE TRIGGER event_is_final BEFORE UPDATE OR DELETE ON hpsearch.event
    FOR EACH ROW EXECUTE FUNCTION hpsearch.refuse('events are never changed');
CREATE TRIGGER event_is_kept BEFORE TRUNCATE ON hpsearch.event
    FOR EACH STATEMENT EXECUTE FUNCTION hpsearch.refuse('events are never changed');

-- Each `hpsearch run` (or library session) on a study.
CREATE TABLE hpsearch.run (
    study      bigint NOT NULL REFERENCES hpsearch.study ON DELETE CASCADE,
    run        bigint NOT NULL,
    started_ms bigint NOT NULL,
    seconds    double precision NOT NULL,      -- so far
    ended      text,                           -- NULL: going on, or killed
    pid        bigint NOT NULL,
    host       text   NOT NULL,
    program    text   NOT NULL,
    workers    bigint NOT NULL,
    device     text   NOT NULL,
    PRIMARY KEY (study, run)
);

CREATE TABLE hpsearch.trial (
    study       bigint NOT NULL REFERENCES hpsearch.study ON DELETE CASCADE,
    trial       bigint NOT NULL,               -- its number, from 0
    state       text   NOT NULL CHECK (state IN ('waiting', 'running', 'paused', 'complete', 'stopped', 'failed')),
    value       double precision,              -- the objective after the latest epoch; NULL if failed
    epochs      bigint NOT NULL DEFAULT 0,     -- epochs on record
    result      double precision,              -- the objective after the latest finished order
    result_epochs bigint NOT NULL DEFAULT 0,   -- after how many epochs that was
    bracket     bigint NOT NULL,
    rung        bigint,                        -- the rung it was sent to last
    seconds     double precision NOT NULL DEFAULT 0, -- of its epochs, each counted once
    params      text   NOT NULL,               -- the configuration as JSON; see trial_param
    issued_ms   bigint,                        -- first attempt
    finished_ms bigint,                        -- latest order done; NULL while another is open
    PRIMARY KEY (study, trial)
);

CREATE TABLE hpsearch.trial_param (
    study  bigint NOT NULL,
    trial  bigint NOT NULL,
    name   text   NOT NULL,
    value  text   NOT NULL,
    number double precision,                   -- the value where it is a number; booleans are 0 and 1
    PRIMARY KEY (study, trial, name),
    FOREIGN KEY (study, trial) REFERENCES hpsearch.trial ON DELETE CASCADE
);

-- A contiguous stretch of training of one trial.
CREATE TABLE hpsearch.work_order (
    study       bigint NOT NULL,
    work_order  bigint NOT NULL,
    trial       bigint NOT NULL,
    from_epoch  bigint NOT NULL,
    to_epoch    bigint NOT NULL,
    bracket     bigint NOT NULL,
    rung        bigint,
    outcome     text CHECK (outcome IN ('reached', 'stopped', 'failed')), -- NULL while open
    at_epoch    bigint,
    value       double precision,
    finished_ms bigint,
    PRIMARY KEY (study, work_order),
    FOREIGN KEY (study, trial) REFERENCES hpsearch.trial ON DELETE CASCADE
);
CREATE INDEX work_order_of_trial ON hpsearch.work_order (study, trial);

-- A try of a worker at an order.
CREATE TABLE hpsearch.attempt (
    study      bigint NOT NULL,
    work_order bigint NOT NULL,
    attempt    bigint NOT NULL,
    worker     bigint NOT NULL,
    started_ms bigint NOT NULL,
    ended_ms   bigint,
    ended      text,                           -- done, interrupted, or the class of its failure; NULL: going on
    PRIMARY KEY (study, work_order, attempt),
    FOREIGN KEY (study, work_order) REFERENCES hpsearch.work_order ON DELETE CASCADE
);

-- The latest worker of a number: where it ran, and what its results depend on beyond the study.
CREATE TABLE hpsearch.worker (
    study      bigint NOT NULL REFERENCES hpsearch.study ON DELETE CASCADE,
    worker     bigint NOT NULL,
    host       text   NOT NULL,
    job        text,                           -- of a batch system
    program    text   NOT NULL,                -- BLAKE3 of the executable
    arithmetic text,
    ready_ms   bigint NOT NULL,
    PRIMARY KEY (study, worker)
);

CREATE TABLE hpsearch.epoch (
    study             bigint NOT NULL,
    trial             bigint NOT NULL,
    epoch             bigint NOT NULL,         -- epochs done, from 1
    value             double precision,        -- the objective; NULL: diverged
    train_loss        double precision,
    seconds           double precision NOT NULL,
    data_wait_seconds double precision NOT NULL,
    images            bigint NOT NULL,
    work_order        bigint NOT NULL,
    attempt           bigint NOT NULL,
    reported_ms       bigint NOT NULL,
    PRIMARY KEY (study, trial, epoch),
    FOREIGN KEY (study, trial) REFERENCES hpsearch.trial ON DELETE CASCADE
);

CREATE TABLE hpsearch.metric (
    study bigint NOT NULL,
    trial bigint NOT NULL,
    epoch bigint NOT NULL,
    name  text   NOT NULL,
    value double precision NOT NULL,           -- undefined ones have no row
    PRIMARY KEY (study, trial, epoch, name),
    FOREIGN KEY (study, trial, epoch) REFERENCES hpsearch.epoch ON DELETE CASCADE
);

-- Every attempt that went wrong; final: no further one was made.
CREATE TABLE hpsearch.failure (
    study      bigint NOT NULL,
    seq        bigint NOT NULL,                -- of its event
    trial      bigint NOT NULL,
    work_order bigint NOT NULL,
    attempt    bigint,
    class      text   NOT NULL,
    reason     text   NOT NULL,
    final      boolean NOT NULL,
    at_ms      bigint NOT NULL,
    PRIMARY KEY (study, seq),
    FOREIGN KEY (study, trial) REFERENCES hpsearch.trial ON DELETE CASCADE
);

-- Results of earlier studies that the sampler knew from the start.
CREATE TABLE hpsearch.earlier_result (
    study   bigint NOT NULL REFERENCES hpsearch.study ON DELETE CASCADE,
    seq     bigint NOT NULL,                   -- of its event
    earlier text   NOT NULL,                   -- the earlier study
    trial   bigint NOT NULL,                   -- its number there
    epoch   bigint NOT NULL,                   -- how long it was trained, in epochs of this study
    value   double precision NOT NULL,
    params  text   NOT NULL,
    PRIMARY KEY (study, seq, trial)
);

-- Configurations put first by hand.
CREATE TABLE hpsearch.enqueued (
    study  bigint NOT NULL REFERENCES hpsearch.study ON DELETE CASCADE,
    seq    bigint NOT NULL,                    -- of its event
    params text   NOT NULL,
    at_ms  bigint NOT NULL,
    PRIMARY KEY (study, seq)
);

-- Checkpoints and predictions, paths relative to the study's folder.
CREATE TABLE hpsearch.file (
    study  bigint NOT NULL,
    path   text   NOT NULL,
    kind   text   NOT NULL CHECK (kind IN ('checkpoint', 'predictions')),
    trial  bigint NOT NULL,
    epoch  bigint NOT NULL,
    digest text   NOT NULL,                    -- BLAKE3
    bytes  bigint NOT NULL,
    kept   boolean NOT NULL,                   -- false: no longer needed, deleted
    PRIMARY KEY (study, path),
    FOREIGN KEY (study, trial) REFERENCES hpsearch.trial ON DELETE CASCADE
);
CREATE INDEX kept_file ON hpsearch.file (study, path) WHERE kept;

-- The images of a study when training began.
CREATE TABLE hpsearch.images (
    study   bigint PRIMARY KEY REFERENCES hpsearch.study ON DELETE CASCADE,
    seen_ms bigint NOT NULL,
    folder  text   NOT NULL,                   -- of the study file: paths in it are relative to this
    digest  text   NOT NULL,                   -- of names, classes, bytes and split
    summary text   NOT NULL                    -- counts of classes and splits, JSON
);
CREATE TRIGGER images_are_final BEFORE UPDATE OR DELETE ON hpsearch.images
    FOR EACH ROW EXECUTE FUNCTION hpsearch.refuse('the images of a study are never changed');
CREATE TRIGGER images_is_kept BEFORE TRUNCATE ON hpsearch.images
    FOR EACH STATEMENT EXECUTE FUNCTION hpsearch.refuse('the images of a study are never changed');

-- The opening of the test images, of which there is one, and what was found.
CREATE TABLE hpsearch.test_opening (
    study      bigint PRIMARY KEY REFERENCES hpsearch.study ON DELETE CASCADE,
    opened_ms  bigint  NOT NULL,
    unfinished boolean NOT NULL                -- the study was not over
);
CREATE TABLE hpsearch.test_result (
    study     bigint NOT NULL,
    trial     bigint NOT NULL,
    place     bigint NOT NULL,                 -- rank on validation, from 0
    threshold double precision,                -- fixed on validation before; NULL: undefined there
    path      text   NOT NULL,                 -- predictions of the test images
    digest    text   NOT NULL,
    bytes     bigint NOT NULL,
    PRIMARY KEY (study, trial),
    FOREIGN KEY (study, trial) REFERENCES hpsearch.trial ON DELETE CASCADE
);
CREATE TABLE hpsearch.test_mean (              -- of the scores of all these trials
    study     bigint PRIMARY KEY REFERENCES hpsearch.study ON DELETE CASCADE,
    threshold double precision                 -- fixed on validation before; NULL: undefined there
);
CREATE TRIGGER test_opening_is_final BEFORE UPDATE OR DELETE ON hpsearch.test_opening
    FOR EACH ROW EXECUTE FUNCTION hpsearch.refuse('the opening of the test images is never changed');
CREATE TRIGGER test_opening_is_kept BEFORE TRUNCATE ON hpsearch.test_opening
    FOR EACH STATEMENT EXECUTE FUNCTION hpsearch.refuse('the opening of the test images is never changed');
CREATE TRIGGER test_result_is_final BEFORE UPDATE OR DELETE ON hpsearch.test_result
    FOR EACH ROW EXECUTE FUNCTION hpsearch.refuse('the opening of the test images is never changed');
CREATE TRIGGER test_result_is_kept BEFORE TRUNCATE ON hpsearch.test_result
    FOR EACH STATEMENT EXECUTE FUNCTION hpsearch.refuse('the opening of the test images is never changed');
CREATE TRIGGER test_mean_is_final BEFORE UPDATE OR DELETE ON hpsearch.test_mean
    FOR EACH ROW EXECUTE FUNCTION hpsearch.refuse('the opening of the test images is never changed');
CREATE TRIGGER test_mean_is_kept BEFORE TRUNCATE ON hpsearch.test_mean
    FOR EACH STATEMENT EXECUTE FUNCTION hpsearch.refuse('the opening of the test images is never changed');

-- The metrics of every trial after its latest epoch.
CREATE VIEW hpsearch.final_metric AS
    SELECT t.study, t.trial, m.name, m.value
    FROM hpsearch.trial t JOIN hpsearch.metric m ON m.study = t.study AND m.trial = t.trial AND m.epoch = t.epochs;

-- The curve of every trial, objective and metrics.
CREATE VIEW hpsearch.learning_curve AS
    SELECT e.study, e.trial, e.epoch, s.metric AS name, e.value
    FROM hpsearch.epoch e JOIN hpsearch.study s ON s.study = e.study
    UNION
    SELECT study, trial, epoch, name, value FROM hpsearch.metric;

-- Trials from best to worst: those that are complete or may go on, by their value after the latest epoch, among equals the
-- earlier; then those that were given up, trained longest first. Trials without a value follow, failed ones last.
CREATE VIEW hpsearch.ranking AS
    SELECT t.study,
           row_number() OVER (PARTITION BY t.study
                              ORDER BY t.state = 'failed', t.value IS NULL, t.state = 'stopped',
                                       CASE t.state WHEN 'stopped' THEN -t.epochs END,
                                       CASE s.direction WHEN 'maximize' THEN -t.value ELSE t.value END, t.trial) AS place,
           t.trial, t.state, t.value, t.epochs, t.params
    FROM hpsearch.trial t JOIN hpsearch.study s ON s.study = t.study;
