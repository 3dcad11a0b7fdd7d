//! A database that is made for one run and gone after it.

use crate::proc;
use anyhow::Context as _;
use assent::app::World;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::net::IpAddr;
use std::path::Path;
use url::Url;

pub struct Database {
    pub name: &'static str,
    /// For `database.url`.
    pub url: String,
    /// The process whose children do the work, where that is not the server itself.
    pub postmaster: Option<u32>,
    /// Whom to ask to drop what, in the end.
    drop: Option<(Url, String)>,
}

impl Database {
    /// A file in a folder, which goes with the folder.
    pub fn sqlite(folder: &Path) -> Self {
        Self {
            name: "SQLite",
            url: format!("sqlite://{}?mode=rwc", folder.join("load.db").display()),
            postmaster: None,
            drop: None,
        }
    }

    /// A fresh database on a running PostgreSQL. Without `postmaster`, the parent of our own backend is
    /// taken for it.
    pub async fn postgres(admin: &Url, postmaster: Option<u32>) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(admin.as_str())
            .await
            .context("cannot connect to --postgres; start one with scripts/postgres start DIR")?;
        let postmaster = match postmaster {
            Some(pid) => pid,
            None => find_postmaster(&mut connection).await?,
        };
        let random = World::real().entropy.bytes::<8>();
        let database = format!("assent_load_{:016x}", u64::from_be_bytes(random));
        execute(&mut connection, format!("CREATE DATABASE {database}")).await?;
        connection.close().await?;
        let mut url = admin.clone();
        url.set_path(&database);
        Ok(Self {
            name: "PostgreSQL",
            url: url.into(),
            postmaster: Some(postmaster),
            drop: Some((admin.clone(), database)),
        })
    }

    pub async fn remove(self) -> anyhow::Result<()> {
        let Some((admin, database)) = self.drop else {
            return Ok(());
        };
        let mut connection = PgConnection::connect(admin.as_str()).await?;
        // By force: a server that was killed may have left connections.
        execute(
            &mut connection,
            format!("DROP DATABASE {database} WITH (FORCE)"),
        )
        .await?;
        Ok(connection.close().await?)
    }
}

/// Whether a URL names this very machine, whose processes we can see.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Runs a statement about a database whose name we made up ourselves: names cannot be bound.
async fn execute(connection: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}

async fn find_postmaster(connection: &mut PgConnection) -> anyhow::Result<u32> {
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(connection)
        .await?;
    let pid = u32::try_from(pid)?;
    // In a container it counts its processes differently: then the name is another's.
    let ours = proc::name_of(pid).is_ok_and(|name| name.starts_with("postgres"));
    anyhow::ensure!(
        ours,
        "PostgreSQL's processes are not to be seen here; give --postgres-pid"
    );
    proc::parent_of(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_put_under_load() {
        for (url, here) in [
            ("postgres://postgres@127.0.0.1:5432/postgres", true),
            ("postgres://localhost", true),
            ("postgres://[::1]/x", true),
            ("postgres://192.0.2.1/x", false),
            ("postgres://localhost.example/x", false),
            ("postgres:///x", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), here, "{url}");
        }
    }
}
