//! `assent user add|lock|unblock|list`.

use super::Context;
use super::output::time;
use crate::app::Core;
use crate::domain::user::{Login, User as Person};
use crate::domain::{BindingMessage, Secret};
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
    /// Let a person be asked again who reported fraud, or mistyped codes
    Unblock { login: String },
    /// Set a person's user_code, read from standard input; an empty line removes it
    SetCode { login: String },
    /// End every token that was issued for a person so far
    RevokeTokens { login: String },
    /// List the people
    List,
}

impl User {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let core = context.core().await?;
        let output = &context.output;
        match self {
            Self::Add { login, name } => {
                let name = name
                    .map(|name| BindingMessage::parse(&name).map(String::from))
                    .transpose();
                let name = name.map_err(|_| {
                    anyhow::anyhow!("a name is 1 to 64 plain visible characters, and no link")
                })?;
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
            Self::Unblock { login } => {
                let user = find(&core, &login).await?;
                core.services.unblock_user(&user).await?;
                output.result(
                    &format!("{login} can be asked again, and type codes."),
                    &json!({ "sub": user.id, "unblocked": true }),
                );
            }
            Self::SetCode { login } => {
                let user = find(&core, &login).await?;
                let mut line = String::new();
                std::io::stdin()
                    .read_line(&mut line)
                    .context("cannot read the code")?;
                let code = line.trim_end_matches(['\r', '\n']);
                anyhow::ensure!(
                    code.chars().count() <= 64,
                    "a user_code has at most 64 characters"
                );
                let set = !code.is_empty();
                let secret = set.then(|| Secret::new(code.to_owned()));
                core.services.set_user_code(&user, secret).await?;
                let done = if set { "set" } else { "removed" };
                output.result(
                    &format!("The user_code of {login} is {done}."),
                    &json!({ "sub": user.id, "user_code": set }),
                );
            }
            Self::RevokeTokens { login } => {
                let user = find(&core, &login).await?;
                core.services.revoke_user_tokens(&user).await?;
                output.result(
                    &format!("Every token issued for {login} so far is revoked."),
                    &json!({ "sub": user.id, "tokens_revoked": true }),
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
