-- One text for SQLite and PostgreSQL: TEXT and BIGINT only. Times are milliseconds since 1970, hashes and
-- bytes are base64url text, "sealed" columns are encrypted by the data-seal key for their own row.

-- The key ring. Rows are never deleted: evidence must stay verifiable. A version follows another of its
-- purpose and algorithm: published when created, used from activates_at to retires_at, published until gone_at.
CREATE TABLE keys (
    purpose       TEXT NOT NULL,
    version       BIGINT NOT NULL,
    algorithm     TEXT, -- of a signing key
    wrapped       TEXT NOT NULL,
    public_jwk    TEXT,
    created_at    BIGINT NOT NULL,
    activates_at  BIGINT NOT NULL,
    retires_at    BIGINT,
    gone_at       BIGINT, -- a key that signs nothing is never gone
    revoked_at    BIGINT,
    PRIMARY KEY (purpose, version)
);

-- The Directory: who may ask, who is asked, what they answer with.
CREATE TABLE clients (
    id                  TEXT NOT NULL PRIMARY KEY,
    secret_key_version  BIGINT,
    secret_mac          TEXT,
    registration        TEXT NOT NULL, -- JSON
    created_at          BIGINT NOT NULL,
    locked_at           BIGINT,
    tokens_not_before   BIGINT
);

CREATE TABLE users (
    id          TEXT NOT NULL PRIMARY KEY,
    partition   BIGINT NOT NULL,
    login       TEXT NOT NULL UNIQUE,
    name        TEXT,
    created_at  BIGINT NOT NULL,
    locked_at   BIGINT,
    tokens_not_before        BIGINT,
    user_code                TEXT, -- argon2id
    user_code_failures       BIGINT NOT NULL DEFAULT 0,
    user_code_blocked_until  BIGINT
);

-- The pairwise subjects that were given out: stable whatever becomes of the key that made them.
CREATE TABLE pairwise_subjects (
    sub      TEXT NOT NULL PRIMARY KEY,
    sector   TEXT NOT NULL,
    user_id  TEXT NOT NULL REFERENCES users (id),
    UNIQUE (sector, user_id)
);

CREATE TABLE devices (
    id           TEXT NOT NULL PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id),
    state        TEXT NOT NULL,
    public_jwk   TEXT NOT NULL,
    label        TEXT NOT NULL,
    platform     TEXT NOT NULL,
    app_version  TEXT NOT NULL,
    os_version   TEXT NOT NULL,
    push_target  TEXT, -- sealed
    created_at   BIGINT NOT NULL,
    revoked_at   BIGINT
);
CREATE INDEX devices_user ON devices (user_id);

-- Codes are stored as keyed hashes. A link code is found by its own hash; a typed code by its look-up part.
CREATE TABLE enrolments (
    link_hash    TEXT NOT NULL PRIMARY KEY,
    lookup_hash  TEXT NOT NULL UNIQUE,
    secret_hash  TEXT NOT NULL,
    user_id      TEXT NOT NULL REFERENCES users (id),
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    wrong_tries  BIGINT NOT NULL,
    device_id    TEXT REFERENCES devices (id)
);

-- The Ledger: irreversible facts. Whoever inserts first has decided; whoever inserts first has redeemed.
CREATE TABLE outcomes (
    request_id        TEXT NOT NULL PRIMARY KEY,
    partition         BIGINT NOT NULL,
    client_id         TEXT NOT NULL REFERENCES clients (id),
    user_id           TEXT NOT NULL REFERENCES users (id),
    device_id         TEXT REFERENCES devices (id),
    outcome           TEXT NOT NULL,
    reason            TEXT,
    decided_at        BIGINT NOT NULL,
    expires_at        BIGINT NOT NULL,
    redeemable_until  BIGINT NOT NULL,
    evidence          TEXT NOT NULL -- sealed
);
CREATE INDEX outcomes_sweep ON outcomes (redeemable_until);

CREATE TABLE issuances (
    request_id  TEXT NOT NULL PRIMARY KEY REFERENCES outcomes (request_id),
    kind        TEXT NOT NULL,
    issued_at   BIGINT NOT NULL,
    token_id    TEXT, -- jti of the access token
    response    TEXT  -- sealed; kept only where it may have to be sent again
);

-- Every access token that was issued, so that each can be revoked and looked up. Swept after its end.
CREATE TABLE access_tokens (
    jti         TEXT NOT NULL PRIMARY KEY,
    token_hash  TEXT UNIQUE, -- of an opaque token
    client_id   TEXT NOT NULL REFERENCES clients (id),
    user_id     TEXT REFERENCES users (id),
    device_id   TEXT REFERENCES devices (id),
    family_id   TEXT,
    subject     TEXT NOT NULL,
    audience    TEXT NOT NULL,
    scope       TEXT NOT NULL,
    acr         TEXT,
    auth_time   BIGINT,
    issued_at   BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    revoked_at  BIGINT
);
CREATE INDEX access_tokens_family ON access_tokens (family_id);
CREATE INDEX access_tokens_expiry ON access_tokens (expires_at);

-- Refresh tokens: a family per issuance, hashes only.
CREATE TABLE refresh_families (
    id          TEXT NOT NULL PRIMARY KEY,
    request_id  TEXT NOT NULL UNIQUE REFERENCES issuances (request_id),
    client_id   TEXT NOT NULL REFERENCES clients (id),
    user_id     TEXT NOT NULL REFERENCES users (id),
    device_id   TEXT REFERENCES devices (id),
    subject     TEXT NOT NULL,
    scope       TEXT NOT NULL,
    acr         TEXT NOT NULL,
    auth_time   BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    revoked_at  BIGINT
);

CREATE TABLE refresh_tokens (
    token_hash  TEXT NOT NULL PRIMARY KEY,
    family_id   TEXT NOT NULL REFERENCES refresh_families (id),
    created_at  BIGINT NOT NULL,
    used_at     BIGINT,
    response    TEXT -- sealed; inside the grace period the same response is given again
);

-- The audit: a chain of hashes per partition, and one for the system (partition 256). Payloads stand
-- apart, so that a person's can be erased while the chain still verifies.
CREATE TABLE audit_heads (
    partition  BIGINT NOT NULL PRIMARY KEY,
    seq        BIGINT NOT NULL,
    hash       TEXT NOT NULL
);

-- Every head exists from the start, so that taking one is always an update of one row.
INSERT INTO audit_heads (partition, seq, hash) VALUES
    (0, 0, ''), (1, 0, ''), (2, 0, ''), (3, 0, ''), (4, 0, ''), (5, 0, ''), (6, 0, ''), (7, 0, ''),
    (8, 0, ''), (9, 0, ''), (10, 0, ''), (11, 0, ''), (12, 0, ''), (13, 0, ''), (14, 0, ''), (15, 0, ''),
    (16, 0, ''), (17, 0, ''), (18, 0, ''), (19, 0, ''), (20, 0, ''), (21, 0, ''), (22, 0, ''), (23, 0, ''),
    (24, 0, ''), (25, 0, ''), (26, 0, ''), (27, 0, ''), (28, 0, ''), (29, 0, ''), (30, 0, ''), (31, 0, ''),
    (32, 0, ''), (33, 0, ''), (34, 0, ''), (35, 0, ''), (36, 0, ''), (37, 0, ''), (38, 0, ''), (39, 0, ''),
    (40, 0, ''), (41, 0, ''), (42, 0, ''), (43, 0, ''), (44, 0, ''), (45, 0, ''), (46, 0, ''), (47, 0, ''),
    (48, 0, ''), (49, 0, ''), (50, 0, ''), (51, 0, ''), (52, 0, ''), (53, 0, ''), (54, 0, ''), (55, 0, ''),
    (56, 0, ''), (57, 0, ''), (58, 0, ''), (59, 0, ''), (60, 0, ''), (61, 0, ''), (62, 0, ''), (63, 0, ''),
    (64, 0, ''), (65, 0, ''), (66, 0, ''), (67, 0, ''), (68, 0, ''), (69, 0, ''), (70, 0, ''), (71, 0, ''),
    (72, 0, ''), (73, 0, ''), (74, 0, ''), (75, 0, ''), (76, 0, ''), (77, 0, ''), (78, 0, ''), (79, 0, ''),
    (80, 0, ''), (81, 0, ''), (82, 0, ''), (83, 0, ''), (84, 0, ''), (85, 0, ''), (86, 0, ''), (87, 0, ''),
    (88, 0, ''), (89, 0, ''), (90, 0, ''), (91, 0, ''), (92, 0, ''), (93, 0, ''), (94, 0, ''), (95, 0, ''),
    (96, 0, ''), (97, 0, ''), (98, 0, ''), (99, 0, ''), (100, 0, ''), (101, 0, ''), (102, 0, ''), (103, 0, ''),
    (104, 0, ''), (105, 0, ''), (106, 0, ''), (107, 0, ''), (108, 0, ''), (109, 0, ''), (110, 0, ''), (111, 0, ''),
    (112, 0, ''), (113, 0, ''), (114, 0, ''), (115, 0, ''), (116, 0, ''), (117, 0, ''), (118, 0, ''), (119, 0, ''),
    (120, 0, ''), (121, 0, ''), (122, 0, ''), (123, 0, ''), (124, 0, ''), (125, 0, ''), (126, 0, ''), (127, 0, ''),
    (128, 0, ''), (129, 0, ''), (130, 0, ''), (131, 0, ''), (132, 0, ''), (133, 0, ''), (134, 0, ''), (135, 0, ''),
    (136, 0, ''), (137, 0, ''), (138, 0, ''), (139, 0, ''), (140, 0, ''), (141, 0, ''), (142, 0, ''), (143, 0, ''),
    (144, 0, ''), (145, 0, ''), (146, 0, ''), (147, 0, ''), (148, 0, ''), (149, 0, ''), (150, 0, ''), (151, 0, ''),
    (152, 0, ''), (153, 0, ''), (154, 0, ''), (155, 0, ''), (156, 0, ''), (157, 0, ''), (158, 0, ''), (159, 0, ''),
    (160, 0, ''), (161, 0, ''), (162, 0, ''), (163, 0, ''), (164, 0, ''), (165, 0, ''), (166, 0, ''), (167, 0, ''),
    (168, 0, ''), (169, 0, ''), (170, 0, ''), (171, 0, ''), (172, 0, ''), (173, 0, ''), (174, 0, ''), (175, 0, ''),
    (176, 0, ''), (177, 0, ''), (178, 0, ''), (179, 0, ''), (180, 0, ''), (181, 0, ''), (182, 0, ''), (183, 0, ''),
    (184, 0, ''), (185, 0, ''), (186, 0, ''), (187, 0, ''), (188, 0, ''), (189, 0, ''), (190, 0, ''), (191, 0, ''),
    (192, 0, ''), (193, 0, ''), (194, 0, ''), (195, 0, ''), (196, 0, ''), (197, 0, ''), (198, 0, ''), (199, 0, ''),
    (200, 0, ''), (201, 0, ''), (202, 0, ''), (203, 0, ''), (204, 0, ''), (205, 0, ''), (206, 0, ''), (207, 0, ''),
    (208, 0, ''), (209, 0, ''), (210, 0, ''), (211, 0, ''), (212, 0, ''), (213, 0, ''), (214, 0, ''), (215, 0, ''),
    (216, 0, ''), (217, 0, ''), (218, 0, ''), (219, 0, ''), (220, 0, ''), (221, 0, ''), (222, 0, ''), (223, 0, ''),
    (224, 0, ''), (225, 0, ''), (226, 0, ''), (227, 0, ''), (228, 0, ''), (229, 0, ''), (230, 0, ''), (231, 0, ''),
    (232, 0, ''), (233, 0, ''), (234, 0, ''), (235, 0, ''), (236, 0, ''), (237, 0, ''), (238, 0, ''), (239, 0, ''),
    (240, 0, ''), (241, 0, ''), (242, 0, ''), (243, 0, ''), (244, 0, ''), (245, 0, ''), (246, 0, ''), (247, 0, ''),
    (248, 0, ''), (249, 0, ''), (250, 0, ''), (251, 0, ''), (252, 0, ''), (253, 0, ''), (254, 0, ''), (255, 0, ''),
    (256, 0, '');

CREATE TABLE audit (
    partition     BIGINT NOT NULL REFERENCES audit_heads (partition),
    seq           BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    kind          TEXT NOT NULL,
    payload_hash  TEXT NOT NULL,
    hash          TEXT NOT NULL,
    PRIMARY KEY (partition, seq)
);

CREATE TABLE audit_payloads (
    partition  BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    salt       TEXT NOT NULL,
    payload    TEXT NOT NULL,
    PRIMARY KEY (partition, seq),
    FOREIGN KEY (partition, seq) REFERENCES audit (partition, seq)
);

CREATE TABLE checkpoints (
    seq         BIGINT NOT NULL PRIMARY KEY,
    created_at  BIGINT NOT NULL,
    statement   TEXT NOT NULL
);

-- How far the checkpoints have come: spares reading them all to write the next. `audit verify`
-- does not believe it.
CREATE TABLE anchored_heads (
    partition  BIGINT NOT NULL PRIMARY KEY,
    seq        BIGINT NOT NULL,
    hash       TEXT NOT NULL
);

-- Pending requests: a projection that may be lost. What was decided stands in outcomes.
CREATE TABLE pending_requests (
    request_id  TEXT NOT NULL PRIMARY KEY,
    client_id   TEXT NOT NULL,
    user_id     TEXT NOT NULL,
    state       TEXT NOT NULL,
    expires_at  BIGINT NOT NULL,
    delete_at   BIGINT NOT NULL,
    facts       TEXT NOT NULL
);
CREATE INDEX pending_requests_user ON pending_requests (user_id, expires_at);
CREATE INDEX pending_requests_delete ON pending_requests (delete_at);

CREATE TABLE idempotency_keys (
    scope_hash   TEXT NOT NULL PRIMARY KEY,
    body_hash    TEXT NOT NULL,
    auth_req_id  TEXT NOT NULL, -- sealed
    expires_at   BIGINT NOT NULL
);

-- Serialises the creation of requests for one person, so that caps hold.
CREATE TABLE request_caps (
    user_id  TEXT NOT NULL PRIMARY KEY,
    changes  BIGINT NOT NULL
);

-- Leased jobs: ready, delayed, retrying and abandoned are one thing, a due time.
CREATE TABLE jobs (
    queue       TEXT NOT NULL,
    id          TEXT NOT NULL,
    due_at      BIGINT NOT NULL,
    attempts    BIGINT NOT NULL,
    payload     TEXT NOT NULL,
    last_error  TEXT,
    dead_at     BIGINT,
    PRIMARY KEY (queue, id)
);
CREATE INDEX jobs_due ON jobs (queue, due_at);

CREATE TABLE replays (
    id          TEXT NOT NULL PRIMARY KEY,
    expires_at  BIGINT NOT NULL
);
