//! All that differs between the two databases, and how a transaction is spelled.

use std::time::Duration;

pub const COMMIT: &str = "COMMIT";
pub const ROLLBACK: &str = "ROLLBACK";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// From a database URL; `None` for a scheme we do not speak.
    pub fn of(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// Makes the database's file, if it is one, so that only its owner can read it: people's names are
    /// in it. A file that cannot be made is reported by the connection that comes next.
    pub fn prepare(self, url: &str) {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = url
            .strip_prefix("sqlite://")
            .map(|rest| rest.split('?').next().unwrap_or(rest));
        let creates = url.contains("mode=rwc");
        if let (Self::Sqlite, Some(path), true) = (self, path, creates) {
            let _ = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// How a writing transaction begins. SQLite must ask for its one write lock at once: a reader that
    /// turns writer later fails without waiting.
    pub const fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// Connections that may write at a time. Several writers on SQLite are correct but starve each
    /// other; one is twenty times faster.
    pub const fn writers(self) -> u32 {
        match self {
            Self::Sqlite => 1,
            Self::Postgres => 16,
        }
    }

    /// How long a database is waited for that should say whether it is there. A PostgreSQL that is not is
    /// told of soon; a SQLite file is as slow as its disk.
    pub const fn wait_for_database(self) -> Duration {
        match self {
            Self::Sqlite => Duration::from_secs(10),
            Self::Postgres => Duration::from_secs(2),
        }
    }

    /// How long a connection may have lain idle and is used without being asked whether it still lives.
    /// `None`: as long as it likes, since nobody ends it but us.
    pub const fn trusts_idle_for(self) -> Option<Duration> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Duration::from_secs(5)),
        }
    }

    /// How long a statement may go without a word from the database: longer than the lock time-out, so
    /// that one who waits for a lock is told by the database itself.
    pub const fn patience(self) -> Duration {
        match self {
            Self::Sqlite => Duration::from_secs(30),
            Self::Postgres => Duration::from_secs(5),
        }
    }

    /// The same for statements over many rows: longer than PostgreSQL's own time-out.
    pub const fn patience_with_sweeps(self) -> Duration {
        match self {
            Self::Sqlite => Duration::from_secs(60),
            Self::Postgres => Duration::from_secs(25),
        }
    }

    /// What a new connection is told. `busy_timeout` first: the switch to WAL cannot wait otherwise.
    pub const fn after_connect(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; \
                 PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"
            }
            Self::Postgres => {
                "SET lock_timeout = '4s'; SET statement_timeout = '20s'; \
                 SET idle_in_transaction_session_timeout = '30s'"
            }
        }
    }

    /// Settings that are read back at start, with what they must say: a pragma that did not take is
    /// data lost at the next power cut.
    pub const fn must_hold(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Sqlite => &[
                ("SELECT journal_mode FROM pragma_journal_mode", "wal"),
                (
                    "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous",
                    "2",
                ),
                (
                    "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys",
                    "1",
                ),
            ],
            Self::Postgres => &[("SELECT current_setting('fsync')", "on")],
        }
    }

    /// The database's clock in milliseconds since 1970.
    pub const fn clock(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS BIGINT)",
            Self::Postgres => "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// Claims due jobs of a queue. PostgreSQL passes over the rows that a rival is taking: waiting for
    /// them, two claims of several jobs can block each other for good. Materialised, since a limit that
    /// is worked out again for each row limits nothing.
    pub const fn claim_jobs(self) -> &'static str {
        macro_rules! claim {
            ($lock:literal) => {
                concat!(
                    "WITH due AS MATERIALIZED \
                     (SELECT id FROM jobs WHERE queue = $2 AND due_at <= $3 AND dead_at IS NULL \
                      ORDER BY due_at, id LIMIT $4",
                    $lock,
                    ") UPDATE jobs SET due_at = $1, attempts = attempts + 1 \
                     WHERE queue = $2 AND id IN (SELECT id FROM due) \
                     RETURNING id, attempts, payload"
                )
            };
        }
        match self {
            Self::Sqlite => claim!(""),
            Self::Postgres => claim!(" FOR UPDATE SKIP LOCKED"),
        }
    }

    /// SQLite's migrator takes no lock of its own, so all of it runs in one locked transaction;
    /// PostgreSQL's advisory lock must be left alone: wrapped, it would end before the commit.
    pub const fn migrates_in_transaction(self) -> bool {
        matches!(self, Self::Sqlite)
    }
}
