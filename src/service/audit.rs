//! Can the audit be believed?

use super::Services;
use crate::crypto::audit_chain::{
    CHECKPOINT_TYP, Checkpoint, GENESIS, Head, SALT_LEN, payload_hash, root, row_hash,
};
use crate::crypto::{from_base64url, sha256_base64url};
use crate::store::StoreError;
use serde::Serialize;
use std::collections::BTreeMap;

const PAGE: i64 = 500;

/// What checkpoints have seen of one chain: the hashes of rows, by their numbers.
type Seen = BTreeMap<i64, String>;

/// What a walk over the whole audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    pub chains: usize,
    pub rows: i64,
    pub checkpoints: usize,
    /// Rows newer than the last checkpoint: not yet anchored.
    pub not_anchored: i64,
    /// Rows whose payload was erased; their place in the chain is intact.
    pub erased: i64,
    /// What does not fit. Empty: the audit is whole.
    pub findings: Vec<String>,
}

impl AuditReport {
    pub const fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Services {
    /// Signs how long every chain is, if any has grown since the last time. False: nothing new, or
    /// another node was faster.
    pub async fn checkpoint(&self) -> Result<bool, StoreError> {
        let last = self.audit_log.last_checkpoint().await?;
        let (previous_seq, previous_hash) = match &last {
            None => (0, String::new()),
            Some(statement) => {
                let checkpoint = self.read_checkpoint(statement)?;
                (checkpoint.seq, sha256_base64url(statement.as_bytes()))
            }
        };
        let anchored = self.audit_log.anchored_heads().await?;
        let heads = self.audit_log.heads().await?;
        let moved: Vec<Head> = heads
            .iter()
            .filter(|head| !anchored.contains(head))
            .cloned()
            .collect();
        if moved.is_empty() {
            return Ok(false);
        }
        let now = self.clock.now();
        let checkpoint = Checkpoint {
            iss: self.policy.issuer.clone(),
            iat: now.secs(),
            seq: previous_seq + 1,
            previous: previous_hash,
            moved,
            root: root(&heads),
            rows: heads.iter().map(|head| head.seq).sum(),
        };
        let statement = self.keys.sign_checkpoint(CHECKPOINT_TYP, &checkpoint);
        self.audit_log
            .insert_checkpoint(checkpoint.seq, now, &statement, &checkpoint.moved)
            .await
    }

    fn read_checkpoint(&self, statement: &str) -> Result<Checkpoint, StoreError> {
        self.keys
            .verify_checkpoint(CHECKPOINT_TYP, statement)
            .map_err(|_| StoreError::Corrupt {
                table: "checkpoints",
                row: sha256_base64url(statement.as_bytes()),
                what: "the signature does not verify",
            })
    }

    /// Walks every chain from its first row and holds it against heads and checkpoints; `external` is
    /// a checkpoint kept elsewhere, which the stored ones must contain.
    ///
    /// # Errors
    /// Only when the stores cannot be read; what is wrong with the audit is in the report.
    pub async fn verify_audit(&self, external: Option<&str>) -> Result<AuditReport, StoreError> {
        let mut report = AuditReport::default();
        // Checkpoints, then rows, then heads: whoever writes meanwhile moves heads beyond what was read,
        // and never makes one look wrong.
        let seen = self.verify_checkpoints(external, &mut report).await?;
        let extents = self.audit_log.extents().await?;
        let heads: BTreeMap<i64, Head> = self
            .audit_log
            .heads()
            .await?
            .into_iter()
            .map(|head| (head.partition, head))
            .collect();
        let mut chains: Vec<i64> = heads
            .keys()
            .chain(extents.keys())
            .chain(seen.keys())
            .copied()
            .collect();
        chains.sort_unstable();
        chains.dedup();
        report.chains = chains.len();
        let unseen = Seen::new();
        for chain in chains {
            let head = heads.get(&chain).cloned().unwrap_or_else(|| genesis(chain));
            let (first, last) = extents.get(&chain).copied().unwrap_or((1, 0));
            if first < 1 {
                report
                    .findings
                    .push(format!("chain {chain}: there is a row {first}"));
            }
            let seen = seen.get(&chain).unwrap_or(&unseen);
            let end = self
                .walk(chain, head.seq.max(last), seen, &mut report)
                .await?;
            if head != end {
                report.findings.push(format!(
                    "chain {chain}: the head does not match its last row, number {}",
                    end.seq
                ));
            }
            let anchored = seen.last_key_value().map_or(0, |(seq, _)| *seq);
            if end.seq < anchored {
                report.findings.push(format!(
                    "chain {chain}: {} rows are missing at the end; a checkpoint has seen {anchored}",
                    anchored - end.seq
                ));
            }
            report.not_anchored += (end.seq - anchored).max(0);
        }
        Ok(report)
    }

    /// Checks that the checkpoints follow each other without a gap; what they have seen of each chain.
    async fn verify_checkpoints(
        &self,
        external: Option<&str>,
        report: &mut AuditReport,
    ) -> Result<BTreeMap<i64, Seen>, StoreError> {
        let statements = self.audit_log.checkpoints().await?;
        let mut heads: BTreeMap<i64, Head> = BTreeMap::new();
        let mut seen: BTreeMap<i64, Seen> = BTreeMap::new();
        let mut previous = String::new();
        for (i, statement) in statements.iter().enumerate() {
            report.checkpoints += 1;
            let number = i + 1;
            let checkpoint: Checkpoint =
                match self.keys.verify_checkpoint(CHECKPOINT_TYP, statement) {
                    Ok(checkpoint) => checkpoint,
                    Err(error) => {
                        report
                            .findings
                            .push(format!("checkpoint {number}: {error}"));
                        continue;
                    }
                };
            if checkpoint.seq != number as i64 || checkpoint.previous != previous {
                report.findings.push(format!(
                    "checkpoint {number}: does not follow the one before"
                ));
            }
            previous = sha256_base64url(statement.as_bytes());
            for head in checkpoint.moved {
                // The first word counts: a chain that was made anew is signed by the next checkpoint.
                seen.entry(head.partition)
                    .or_default()
                    .entry(head.seq)
                    .or_insert_with(|| head.hash.clone());
                heads.insert(head.partition, head);
            }
            let rows: i64 = heads.values().map(|head| head.seq).sum();
            if checkpoint.rows != rows || checkpoint.root != root(heads.values()) {
                report
                    .findings
                    .push(format!("checkpoint {number}: its root does not add up"));
            }
        }
        if let Some(external) = external.map(str::trim)
            && !statements.iter().any(|statement| statement == external)
        {
            report.findings.push(match self.read_checkpoint(external) {
                Ok(checkpoint) => format!(
                    "checkpoint {} kept elsewhere is not among the stored ones: the audit was cut or replaced",
                    checkpoint.seq
                ),
                Err(_) => "the checkpoint kept elsewhere was not signed by this audit's key".to_owned(),
            });
        }
        Ok(seen)
    }

    /// Walks one chain up to row `until`; where it ends.
    async fn walk(
        &self,
        chain: i64,
        until: i64,
        seen: &Seen,
        report: &mut AuditReport,
    ) -> Result<Head, StoreError> {
        let mut end = genesis(chain);
        loop {
            let rows = self.audit_log.rows(chain, end.seq, PAGE).await?;
            let full = rows.len() as i64 == PAGE;
            for row in rows {
                if row.seq > until {
                    return Ok(end);
                }
                let expected = row_hash(
                    &end.hash,
                    chain,
                    end.seq + 1,
                    row.at,
                    &row.kind,
                    &row.payload_hash,
                );
                if row.seq != end.seq + 1 {
                    report
                        .findings
                        .push(format!("chain {chain}: row {} is missing", end.seq + 1));
                } else if row.hash != expected {
                    report
                        .findings
                        .push(format!("chain {chain}: row {} was changed", row.seq));
                }
                match &row.payload {
                    None => report.erased += 1,
                    Some((salt, payload)) => {
                        // Salt and payload are hashed without a mark between them.
                        let salt = from_base64url(salt).filter(|salt| salt.len() == SALT_LEN);
                        let hash = salt.map(|salt| payload_hash(&salt, payload));
                        if hash.as_ref() != Some(&row.payload_hash) {
                            report.findings.push(format!(
                                "chain {chain}: the payload of row {} was changed",
                                row.seq
                            ));
                        }
                    }
                }
                report.rows += 1;
                end.seq = row.seq;
                end.hash = row.hash;
                if seen.get(&end.seq).is_some_and(|hash| *hash != end.hash) {
                    report.findings.push(format!(
                        "chain {chain}: row {} is not the one a checkpoint has seen",
                        end.seq
                    ));
                }
            }
            if !full {
                return Ok(end);
            }
        }
    }
}

/// Where a chain without rows ends.
fn genesis(chain: i64) -> Head {
    Head {
        partition: chain,
        seq: 0,
        hash: GENESIS.to_owned(),
    }
}
