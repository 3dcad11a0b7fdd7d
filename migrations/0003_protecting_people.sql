-- When a person's phones were woken, and for which request: counted over all clients, kept for a day.
CREATE TABLE prompts (
    request_id  TEXT NOT NULL PRIMARY KEY,
    user_id     TEXT NOT NULL,
    at          BIGINT NOT NULL
);
CREATE INDEX prompts_user ON prompts (user_id, at);
CREATE INDEX prompts_at ON prompts (at);

-- What a person denied lately keeps their phones quiet. An operator can end that before its time.
CREATE INDEX outcomes_denied ON outcomes (user_id, decided_at) WHERE outcome = 'denied';
ALTER TABLE users ADD COLUMN blocks_lifted_at BIGINT;

-- Wrong matching codes of a person in a row, and until when none is taken.
ALTER TABLE users ADD COLUMN wrong_matching_codes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN matching_blocked_until BIGINT;

-- 1: it pends and expires, and nobody is asked.
ALTER TABLE pending_requests ADD COLUMN decoy BIGINT NOT NULL DEFAULT 0;

-- How far a request has come on its way to each phone.
CREATE TABLE deliveries (
    request_id  TEXT NOT NULL,
    device_id   TEXT NOT NULL,
    push        TEXT, -- JSON
    fetched_at  BIGINT,
    PRIMARY KEY (request_id, device_id)
);
