//! `assent user add|lock|list`.

use super::Context;
use super::output::time;
use crate::app::Core;
use crate::domain::user::{Login, User as Person};
use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum User {
    /// Add a person
    Add {
        /// What relying parties send as login_hint
        login: String,
        /// The person's name, for relying parties with the scope profile
        #[arg(long)]
        name: Option<String>,
    },
    /// Lock a person: open requests are cancelled, nobody can ask them any more
    Lock { login: String },
    /// List the people
    List,
}

impl User {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let core = context.core().await?;
        let output = &context.output;
        match self {
            Self::Add { login, name } => {
                let added = core.services.add_user(Login::parse(&login)?, name).await?;
                let user = added.context("this login is taken; see `assent user list`")?;
                output.result(
                    &format!(
                        "sub    {}\nlogin  {}\n\nNext: assent enrol {login}",
                        user.id,
                        user.login.as_str()
                    ),
                    &json!({ "sub": user.id, "login": user.login.as_str() }),
                );
            }
            Self::Lock { login } => {
                let user = find(&core, &login).await?;
                let cancelled = core.services.lock_user(&user).await?;
                output.result(
                    &format!("{login} is locked; open requests cancelled: {cancelled}."),
                    &json!({ "sub": user.id, "locked": true, "cancelled_requests": cancelled }),
                );
            }
            Self::List => {
                let users = core.services.directory.users().await?;
                let rows: Vec<_> = users
                    .iter()
                    .map(|user| {
                        vec![
                            user.login.as_str().to_owned(),
                            user.id.to_string(),
                            user.name.clone().unwrap_or_default(),
                            user.locked_at.map_or_else(|| "no".into(), time),
                        ]
                    })
                    .collect();
                let values = users
                    .iter()
                    .map(|user| {
                        json!({
                            "sub": user.id,
                            "login": user.login.as_str(),
                            "name": user.name,
                            "created_at": user.created_at.secs(),
                            "locked_at": user.locked_at.map(|at| at.secs()),
                        })
                    })
                    .collect();
                let empty = "There is nobody; add somebody with `assent user add LOGIN`.";
                output.table(&["login", "sub", "name", "locked"], &rows, values, empty);
            }
        }
        core.db.close().await;
        Ok(())
    }
}

/// The person with this login.
pub async fn find(core: &Core, login: &str) -> anyhow::Result<Person> {
    let found = core
        .services
        .directory
        .user_by_login(&Login::parse(login)?)
        .await?;
    found.with_context(|| format!("nobody has the login {login}; see `assent user list`"))
}
