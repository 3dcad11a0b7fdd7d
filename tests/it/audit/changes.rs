//! What can be done to an audit of five rows (chain `:p`), two (chain 256) and three checkpoints, and how
//! each of it is found. Statements are separated by semicolons.

pub const ROWS: &[(&str, &str)] = &[
    (
        "UPDATE audit_payloads SET payload = replace(payload, 'approved', 'denied') \
         WHERE partition = :p AND seq = 4",
        "chain :p: the payload of row 4 was changed",
    ),
    (
        "UPDATE audit_payloads SET salt = 'AAAAAAAAAAAAAAAAAAAAAA' WHERE partition = :p AND seq = 4",
        "chain :p: the payload of row 4 was changed",
    ),
    (
        "UPDATE audit SET kind = 'request.seen' WHERE partition = :p AND seq = 4",
        "chain :p: row 4 was changed",
    ),
    (
        "UPDATE audit SET at = at + 1 WHERE partition = :p AND seq = 1",
        "chain :p: row 1 was changed",
    ),
    (
        "UPDATE audit SET payload_hash = 'AAAA' WHERE partition = :p AND seq = 2",
        "chain :p: row 2 was changed",
    ),
    (
        "UPDATE audit SET hash = 'AAAA' WHERE partition = :p AND seq = 3",
        "chain :p: row 4 was changed",
    ),
    // The last row, where no later one remembers.
    (
        "UPDATE audit SET hash = 'AAAA' WHERE partition = :p AND seq = 5;
         UPDATE audit_heads SET hash = 'AAAA' WHERE partition = :p",
        "chain :p: row 5 was changed",
    ),
    // Deleted in the middle, with and without closing the gap.
    (
        "DELETE FROM audit_payloads WHERE partition = :p AND seq = 3;
         DELETE FROM audit WHERE partition = :p AND seq = 3",
        "chain :p: row 3 is missing",
    ),
    (
        "DELETE FROM audit_payloads WHERE partition = :p AND seq >= 3;
         DELETE FROM audit WHERE partition = :p AND seq = 3;
         UPDATE audit SET seq = seq - 1 WHERE partition = :p AND seq = 4;
         UPDATE audit SET seq = seq - 1 WHERE partition = :p AND seq = 5;
         UPDATE audit_heads SET seq = 4 WHERE partition = :p",
        "chain :p: row 3 was changed",
    ),
    // Deleted at the end: the head forgets, the checkpoint does not.
    (
        "DELETE FROM audit_payloads WHERE partition = :p AND seq = 5;
         DELETE FROM audit WHERE partition = :p AND seq = 5",
        "chain :p: the head does not match its last row, number 4",
    ),
    (
        "DELETE FROM audit_payloads WHERE partition = :p AND seq = 5;
         DELETE FROM audit WHERE partition = :p AND seq = 5;
         UPDATE audit_heads SET seq = 4, hash = (SELECT hash FROM audit WHERE partition = :p AND seq = 4) \
         WHERE partition = :p",
        "chain :p: 1 rows are missing at the end; a checkpoint has seen 5",
    ),
    // Put in: behind the head, at the front of the queue, and under a number that was free.
    (
        "INSERT INTO audit SELECT partition, 6, at, kind, payload_hash, hash FROM audit \
         WHERE partition = :p AND seq = 5",
        "chain :p: the head does not match its last row, number 6",
    ),
    (
        "INSERT INTO audit SELECT partition, 6, at, kind, payload_hash, hash FROM audit \
         WHERE partition = :p AND seq = 5;
         UPDATE audit_heads SET seq = 6 WHERE partition = :p",
        "chain :p: row 6 was changed",
    ),
    (
        "INSERT INTO audit SELECT partition, 0, at, kind, payload_hash, hash FROM audit \
         WHERE partition = :p AND seq = 5",
        "chain :p: there is a row 0",
    ),
    (
        "INSERT INTO audit SELECT partition, -7, at, kind, payload_hash, hash FROM audit \
         WHERE partition = :p AND seq = 5",
        "chain :p: there is a row -7",
    ),
    // Two rows change places, and a row moves to another chain.
    (
        "DELETE FROM audit_payloads WHERE partition = :p AND seq IN (2, 3);
         UPDATE audit SET seq = 900 WHERE partition = :p AND seq = 2;
         UPDATE audit SET seq = 2 WHERE partition = :p AND seq = 3;
         UPDATE audit SET seq = 3 WHERE partition = :p AND seq = 900",
        "chain :p: row 2 was changed",
    ),
    (
        "DELETE FROM audit_payloads WHERE partition = 256 AND seq = 2;
         DELETE FROM audit WHERE partition = 256 AND seq = 2;
         INSERT INTO audit SELECT 256, 2, at, kind, payload_hash, hash FROM audit \
         WHERE partition = :p AND seq = 2",
        "chain 256: row 2 was changed",
    ),
    // A whole chain goes: with its head set back, and with its head.
    (
        "DELETE FROM audit_payloads WHERE partition = :p;
         DELETE FROM audit WHERE partition = :p",
        "chain :p: the head does not match its last row, number 0",
    ),
    (
        "DELETE FROM audit_payloads WHERE partition = :p;
         DELETE FROM audit WHERE partition = :p;
         UPDATE audit_heads SET seq = 0, hash = '' WHERE partition = :p",
        "chain :p: 5 rows are missing at the end; a checkpoint has seen 5",
    ),
    (
        "DELETE FROM audit_payloads WHERE partition = :p;
         DELETE FROM audit WHERE partition = :p;
         DELETE FROM audit_heads WHERE partition = :p",
        "chain :p: 5 rows are missing at the end; a checkpoint has seen 5",
    ),
    // The head alone.
    (
        "UPDATE audit_heads SET hash = 'AAAA' WHERE partition = :p",
        "chain :p: the head does not match its last row, number 5",
    ),
    (
        "UPDATE audit_heads SET seq = 3, hash = (SELECT hash FROM audit WHERE partition = :p AND seq = 3) \
         WHERE partition = :p",
        "chain :p: the head does not match its last row, number 5",
    ),
    (
        "UPDATE audit_heads SET seq = 9 WHERE partition = :p",
        "chain :p: the head does not match its last row, number 5",
    ),
    (
        "UPDATE audit_heads SET seq = 0, hash = '' WHERE partition = :p",
        "chain :p: the head does not match its last row, number 5",
    ),
];

pub const CHECKPOINTS: &[(&str, &str)] = &[
    (
        "DELETE FROM checkpoints WHERE seq = 1",
        "checkpoint 1: does not follow the one before",
    ),
    (
        "DELETE FROM checkpoints WHERE seq = 2",
        "checkpoint 2: does not follow the one before",
    ),
    (
        "DELETE FROM checkpoints WHERE seq = 2;
         UPDATE checkpoints SET seq = 2 WHERE seq = 3",
        "checkpoint 2: does not follow the one before",
    ),
    (
        "UPDATE checkpoints SET seq = 9 WHERE seq = 1;
         UPDATE checkpoints SET seq = 1 WHERE seq = 2;
         UPDATE checkpoints SET seq = 2 WHERE seq = 9",
        "checkpoint 1: does not follow the one before",
    ),
    (
        "INSERT INTO checkpoints SELECT 4, created_at, statement FROM checkpoints WHERE seq = 2",
        "checkpoint 4: does not follow the one before",
    ),
    (
        "UPDATE checkpoints SET statement = 'x' || statement WHERE seq = 2",
        "checkpoint 2: ",
    ),
    (
        "UPDATE checkpoints SET statement = substr(statement, 1, length(statement) - 20) \
         || 'AAAAAAAAAAAAAAAAAAAA' WHERE seq = 3",
        "checkpoint 3: the signature does not verify",
    ),
];
