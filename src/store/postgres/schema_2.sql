-- Format 2: the trials that were chosen before the test images were opened.
CREATE TABLE hpsearch.test_choice (
    study     bigint NOT NULL,
    trial     bigint NOT NULL,
    place     bigint NOT NULL,                 -- rank on validation, from 0
    epoch     bigint NOT NULL,                 -- after which it is judged
    threshold double precision,                -- fixed on validation; NULL: undefined there
    PRIMARY KEY (study, trial),
    FOREIGN KEY (study, trial) REFERENCES hpsearch.trial ON DELETE CASCADE
);
CREATE TRIGGER test_choice_is_final BEFORE UPDATE OR DELETE ON hpsearch.test_choice
    FOR EACH ROW EXECUTE FUNCTION hpsearch.refuse('the opening of the test images is never changed');
CREATE TRIGGER test_choice_is_kept BEFORE TRUNCATE ON hpsearch.test_choice
    FOR EACH STATEMENT EXECUTE FUNCTION hpsearch.refuse('the opening of the test images is never changed');
