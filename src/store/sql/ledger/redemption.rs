//! A redemption in the making.

use super::{IssuedTokens, Standing, response_context};
use crate::crypto::KeyRing;
use crate::domain::Timestamp;
use crate::domain::outcome::{DecidedRequest, Issuance};
use crate::failpoint;
use crate::store::StoreError;
use crate::store::sql::audit::{self, AuditEntry, TakenHead};
use crate::store::sql::db::Tx;
use crate::store::sql::tokens::{insert_access_token, insert_family, insert_refresh_token};
use std::sync::Arc;

/// A redemption that holds the issuance and its partition's audit head. Dropped, it never was.
pub struct OpenRedemption {
    pub(super) keys: Arc<KeyRing>,
    pub(super) tx: Tx,
    pub(super) head: TakenHead,
    pub(super) now: Timestamp,
    pub decided: DecidedRequest,
    pub standing: Standing,
}

impl OpenRedemption {
    /// Commits the issuance with its refresh family and audit row. Tokens may leave the server only
    /// after this has returned.
    ///
    /// # Errors
    /// [`StoreError::CommitUnknown`]: read back with [`Ledger::lookup`].
    pub async fn issue(
        mut self,
        tokens: &IssuedTokens,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let id = self.decided.request_id;
        let response = tokens.response.as_ref().map(|response| {
            self.keys
                .seal(&response_context(id), response.expose().as_bytes())
        });
        sqlx::query("UPDATE issuances SET token_id = $2, response = $3 WHERE request_id = $1")
            .bind(id.to_string())
            .bind(&tokens.access.token.id)
            .bind(response)
            .execute(&mut *self.tx)
            .await?;
        insert_access_token(&mut self.tx, &tokens.access).await?;
        if let Some(refresh) = &tokens.refresh {
            insert_family(&mut self.tx, &refresh.family, &id.to_string()).await?;
            insert_refresh_token(
                &mut self.tx,
                &refresh.token_hash,
                &refresh.family.id,
                self.now,
            )
            .await?;
        }
        self.finish(entry).await
    }

    /// Withdraws the approval instead: nobody will ever redeem it.
    ///
    /// # Errors
    /// As [`OpenRedemption::issue`].
    pub async fn void(mut self, entry: AuditEntry) -> Result<(), StoreError> {
        sqlx::query("UPDATE issuances SET kind = $2 WHERE request_id = $1")
            .bind(self.decided.request_id.to_string())
            .bind(Issuance::Voided.as_str())
            .execute(&mut *self.tx)
            .await?;
        self.finish(entry).await
    }

    async fn finish(mut self, entry: AuditEntry) -> Result<(), StoreError> {
        audit::append(&mut self.tx, self.head, entry).await?;
        failpoint::hit("redeem.before_commit");
        self.tx.commit().await?;
        failpoint::hit("redeem.after_commit");
        Ok(())
    }
}
