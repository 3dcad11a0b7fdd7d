//! `assent phone enrol|list|watch|approve|deny`: a phone in the terminal, for anyone without an app.

use super::Context;
use crate::app::World;
use crate::domain::challenge::Matching;
use crate::domain::{Decision, DenyReason, RequestId};
use crate::phone::stream::News;
use crate::phone::{self, EnrolmentLink, PhoneError, ShownRequest, Waiting};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often `watch` looks into the inbox while it has no stream.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The most looks before it tries again to open one.
const MOST_LOOKS: u32 = 32;

#[derive(Debug, Args)]
pub struct Phone {
    /// Where the phone keeps its key
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "assent-data/phone.json"
    )]
    file: PathBuf,
    #[command(subcommand)]
    command: PhoneCommand,
}

#[derive(Debug, Subcommand)]
enum PhoneCommand {
    /// Bind this phone with an enrolment link, or a typed code and the issuer
    Enrol {
        /// The link, or the code
        code: String,
        /// The server, when only a code is given
        #[arg(long)]
        issuer: Option<String>,
        /// What this phone is called
        #[arg(long, default_value = "terminal")]
        label: String,
    },
    /// Show what waits for an answer
    List,
    /// Show every request as it arrives, until interrupted
    Watch,
    // An id in base64url may begin with a hyphen.
    /// Approve a request; without an id, the only one that waits
    Approve {
        #[arg(allow_hyphen_values = true)]
        id: Option<String>,
        /// The code that the requester shows, where one must be typed
        #[arg(long)]
        code: Option<String>,
    },
    /// Deny a request; without an id, the only one that waits
    Deny {
        #[arg(allow_hyphen_values = true)]
        id: Option<String>,
        /// "This was not me" (fraud) or a mistake
        #[arg(long)]
        reason: Option<DenyReason>,
    },
}

impl Phone {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let World { clock, entropy, .. } = World::real();
        let output = &context.output;
        if let PhoneCommand::Enrol {
            code,
            issuer,
            label,
        } = self.command
        {
            anyhow::ensure!(
                !self.file.exists(),
                "{} holds a phone already; name another with --file",
                self.file.display()
            );
            let link = match (EnrolmentLink::parse(&code), issuer) {
                (Some(link), _) => link,
                (None, Some(issuer)) => {
                    anyhow::ensure!(
                        issuer.starts_with("https://") || issuer.starts_with("http://"),
                        "--issuer must be the server's URL, as in https://as.example"
                    );
                    EnrolmentLink { issuer, code }
                }
                (None, None) => anyhow::bail!(
                    "this is no enrolment link; with a typed code also give --issuer URL"
                ),
            };
            // First, since a code is good once: a phone that cannot be kept must not use it up.
            let file = create(&self.file)?;
            let enrolled = phone::Phone::enrol(&link, &label, clock, entropy).await;
            let phone = enrolled.inspect_err(|_| {
                let _ = std::fs::remove_file(&self.file);
            })?;
            write(&phone, file, &self.file)?;
            output.result(
                &format!(
                    "Enrolled as device {}\nThe key is in {}",
                    phone.id(),
                    self.file.display()
                ),
                &json!({ "device_id": phone.id(), "file": self.file }),
            );
            return Ok(());
        }
        let phone = phone::Phone::from_file(read(&self.file)?, clock, entropy)?;
        match self.command {
            PhoneCommand::Enrol { .. } => Ok(()),
            PhoneCommand::List => list(&phone, context).await,
            PhoneCommand::Watch => watch(&phone, context).await,
            PhoneCommand::Approve { id, code } => {
                approve(&phone, context, id.as_deref(), code.as_deref()).await
            }
            PhoneCommand::Deny { id, reason } => deny(&phone, context, id.as_deref(), reason).await,
        }
    }
}

async fn list(phone: &phone::Phone, context: &Context) -> anyhow::Result<()> {
    let waiting = phone.inbox().await?;
    let mut shown = Vec::new();
    for item in &waiting {
        shown.push(phone.show(item.id).await?);
    }
    let human = match shown.len() {
        0 => "Nothing waits.".to_owned(),
        _ => shown.iter().map(render).collect::<Vec<_>>().join("\n\n"),
    };
    let challenges: Vec<_> = shown.iter().map(|request| &request.challenge).collect();
    context.output.result(&human, &json!(challenges));
    Ok(())
}

async fn watch(phone: &phone::Phone, context: &Context) -> anyhow::Result<()> {
    context
        .output
        .say("Watching; answer in another terminal with `assent phone approve` or `deny`.");
    let clock = World::real().clock;
    let mut seen = Vec::new();
    let mut looks = 1;
    // Whether the server is there at all.
    show_new(phone, context, phone.inbox().await?, &mut seen).await?;
    loop {
        match phone.stream().await {
            Ok(mut stream) => {
                looks = 1;
                let ended = loop {
                    match stream.next().await {
                        Ok(News::Ready { requests: news }) => {
                            show_new(phone, context, news, &mut seen).await?;
                        }
                        Ok(News::Request(news)) => {
                            let shown = show_new(phone, context, vec![news], &mut seen).await?;
                            // It is told of once: the inbox has it.
                            if !shown {
                                break None;
                            }
                        }
                        Ok(News::Resolved { .. } | News::Problem { .. }) => {}
                        Err(ended) => break Some(ended),
                    }
                };
                ended.map_or(Ok(()), passing)?;
            }
            Err(error) => passing(error)?,
        }
        for _ in 0..looks {
            match phone.inbox().await {
                Ok(waiting) => drop(show_new(phone, context, waiting, &mut seen).await?),
                Err(error) => passing(error)?,
            }
            clock.sleep_until(clock.now().plus(LOOK_EVERY)).await;
        }
        looks = (looks * 2).min(MOST_LOOKS);
    }
}

/// Goes on after what may pass: a server that is away, or does not offer streams.
fn passing(error: PhoneError) -> Result<(), PhoneError> {
    match error {
        PhoneError::Transport(_) => Ok(()),
        PhoneError::Refused { status, .. } if ![401, 403].contains(&status) => Ok(()),
        error => Err(error),
    }
}

/// Shows the requests that have not been shown. One that was answered in between is not shown any more. False:
/// one could not be shown and may be tried again.
async fn show_new(
    phone: &phone::Phone,
    context: &Context,
    waiting: Vec<Waiting>,
    seen: &mut Vec<RequestId>,
) -> anyhow::Result<bool> {
    let mut all = true;
    for item in waiting {
        if seen.contains(&item.id) {
            continue;
        }
        match phone.show(item.id).await {
            Ok(request) => {
                seen.push(item.id);
                context.output.result(
                    &format!("\n{}", render(&request)),
                    &json!(request.challenge),
                );
            }
            // A server that is away is asked again.
            Err(error) => {
                passing(error)?;
                all = false;
            }
        }
    }
    Ok(all)
}

async fn approve(
    phone: &phone::Phone,
    context: &Context,
    id: Option<&str>,
    code: Option<&str>,
) -> anyhow::Result<()> {
    let request = chosen(phone, context, id).await?;
    match (code, request.challenge.matching) {
        (None, Matching::None) => phone.answer(&request, Decision::Approve, None).await?,
        (Some(code), Matching::Code) => {
            let answer = phone.approve_with_code(&request, code).await?;
            phone::refuse(answer, 200)?;
        }
        (None, Matching::Code) => {
            anyhow::bail!("this request wants the code that the requester shows: --code CODE")
        }
        (Some(_), Matching::None) => anyhow::bail!("this request wants no code"),
    }
    let done = json!({ "id": request.challenge.jti, "decision": Decision::Approve });
    context.output.result("Approved.", &done);
    Ok(())
}

async fn deny(
    phone: &phone::Phone,
    context: &Context,
    id: Option<&str>,
    reason: Option<DenyReason>,
) -> anyhow::Result<()> {
    let request = chosen(phone, context, id).await?;
    phone.answer(&request, Decision::Deny, reason).await?;
    let done = json!({ "id": request.challenge.jti, "decision": Decision::Deny });
    context.output.result("Denied.", &done);
    Ok(())
}

/// The request that is meant, shown before it is answered.
async fn chosen(
    phone: &phone::Phone,
    context: &Context,
    id: Option<&str>,
) -> anyhow::Result<ShownRequest> {
    let id = match id {
        Some(id) => {
            RequestId::parse(id).context("this is no request id; see `assent phone list`")?
        }
        None => only_one(phone).await?,
    };
    let request = phone.show(id).await?;
    context.output.say(&render(&request));
    Ok(request)
}

async fn only_one(phone: &phone::Phone) -> anyhow::Result<RequestId> {
    match phone.inbox().await?.as_slice() {
        [one] => Ok(one.id),
        [] => anyhow::bail!("nothing waits for an answer"),
        _ => anyhow::bail!("several requests wait; name one: see `assent phone list`"),
    }
}

/// A request as the phone shows it: the signed lines and nothing else.
fn render(request: &ShownRequest) -> String {
    let mut text = format!("request          {}", request.challenge.jti);
    for line in &request.challenge.display.lines {
        let claimed = if line.claimed {
            "  (as the requester says)"
        } else {
            ""
        };
        text.push_str(&format!("\n{:16} {}{claimed}", line.label, line.text));
    }
    text
}

/// Makes a file that only its owner can read.
fn create(path: &Path) -> anyhow::Result<File> {
    let create = || -> std::io::Result<File> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    };
    create().with_context(|| cannot_write(path))
}

fn write(phone: &phone::Phone, mut file: File, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&phone.to_file())?;
    file.write_all(text.as_bytes())
        .with_context(|| cannot_write(path))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write the phone to {}", path.display())
}

/// Writes the phone to a file of its own.
pub fn save(phone: &phone::Phone, path: &Path) -> anyhow::Result<()> {
    write(phone, create(path)?, path)
}

fn read(path: &Path) -> anyhow::Result<phone::PhoneFile> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read {}; enrol a phone first: assent phone enrol LINK",
            path.display()
        )
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} does not hold a phone", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        phone: Phone,
    }

    #[test]
    fn an_id_may_start_with_a_hyphen() {
        let read = |arguments: &[&str]| {
            let line = Line::try_parse_from([&["phone"], arguments].concat());
            line.unwrap().phone.command
        };
        let id = "-lD34ivrw0dpikIzCCv_rM9DbE8YH_jQFBhjpCLBAWM";
        for arguments in [
            &["deny", id, "--reason", "fraud"][..],
            &["deny", "--reason", "fraud", id],
        ] {
            let PhoneCommand::Deny { id: read, reason } = read(arguments) else {
                panic!("a denial");
            };
            assert_eq!(
                (read.as_deref(), reason),
                (Some(id), Some(DenyReason::Fraud))
            );
        }
        let PhoneCommand::Deny { id: None, reason } = read(&["deny", "--reason", "fraud"]) else {
            panic!("a denial of the only one");
        };
        assert_eq!(reason, Some(DenyReason::Fraud));
        let PhoneCommand::Approve { id: read, .. } = read(&["approve", id, "--file", "x"]) else {
            panic!("an approval");
        };
        assert_eq!(read.as_deref(), Some(id));
    }
}
