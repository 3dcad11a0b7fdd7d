//! `assent doctor`: is everything in place, and if not, what is to be done?

use super::Context;
use crate::app::{Core, World};
use crate::config::{Config, Mode, Overrides};
use crate::phone::http::HttpClient;
use clap::Args;
use serde_json::json;

#[derive(Debug, Args)]
pub struct Doctor {}

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    /// `Err`: what is wrong and what to do.
    state: Result<String, String>,
}

impl Doctor {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = context.load(&Overrides::new())?;
        let mut findings = vec![Finding {
            what: "settings",
            state: Ok("good".into()),
        }];
        match context.core().await {
            Ok(core) => {
                findings.push(clock(&core).await);
                findings.push(redis(&core).await);
                findings.push(keys(&core).await);
                findings.push(queues(&core).await);
                core.db.close().await;
            }
            Err(error) => findings.push(Finding {
                what: "database",
                state: Err(format!("{error:#}")),
            }),
        }
        findings.push(transport(&config));
        findings.push(issuer(&config).await);
        findings.push(push_gateways(&config));
        let sick = findings
            .iter()
            .filter(|finding| finding.state.is_err())
            .count();
        let lines: Vec<_> = findings
            .iter()
            .map(|finding| match &finding.state {
                Ok(good) => format!("ok    {:14} {good}", finding.what),
                Err(bad) => format!("FAIL  {:14} {bad}", finding.what),
            })
            .collect();
        let values: Vec<_> = findings
            .iter()
            .map(|finding| {
                let (good, detail) = match &finding.state {
                    Ok(detail) => (true, detail),
                    Err(detail) => (false, detail),
                };
                json!({ "what": finding.what, "good": good, "detail": detail })
            })
            .collect();
        context.output.result(&lines.join("\n"), &json!(values));
        anyhow::ensure!(sick == 0, "{sick} of {} are not in order", findings.len());
        Ok(())
    }
}

async fn clock(core: &Core) -> Finding {
    let state = match core.db.now().await {
        Err(error) => Err(format!("{error}; check that the database runs")),
        Ok(theirs) => {
            let ours = World::real().clock.now();
            let apart = ours.since(theirs).max(theirs.since(ours));
            if apart.as_secs() < 2 {
                Ok(format!(
                    "{}; its clock and ours agree",
                    core.db.dialect_name()
                ))
            } else {
                Err(format!(
                    "its clock and ours are {} s apart; synchronise both by NTP",
                    apart.as_secs()
                ))
            }
        }
    };
    Finding {
        what: "database",
        state,
    }
}

async fn redis(core: &Core) -> Finding {
    let state = match (&core.redis, core.check().await) {
        (None, _) => Ok("not used: pending requests live in the database, for one node".into()),
        (Some(_), Ok(())) => Ok("fit for its task; its clock and ours agree".into()),
        (Some(_), Err(error)) => Err(format!("{error:#}")),
    };
    Finding {
        what: "Redis",
        state,
    }
}

async fn keys(core: &Core) -> Finding {
    let state = match core.services.key_table.all().await {
        Ok(records) => Ok(format!("{} keys open", records.len())),
        Err(error) => Err(format!("{error:#}")),
    };
    Finding {
        what: "key ring",
        state,
    }
}

async fn queues(core: &Core) -> Finding {
    let (mut alive, mut dead) = (0, 0);
    for queue in &core.queues {
        match queue.depth().await {
            Ok(depth) => {
                alive += depth.alive;
                dead += depth.dead;
            }
            Err(error) => {
                return Finding {
                    what: "jobs",
                    state: Err(error.to_string()),
                };
            }
        }
    }
    Finding {
        what: "jobs",
        state: Ok(format!(
            "{alive} waiting, {dead} given up (`assent dead-letters list`)"
        )),
    }
}

fn transport(config: &Config) -> Finding {
    let state = match (
        config.server.mode,
        config.server.issuer.starts_with("https://"),
    ) {
        (_, true) => Ok("the issuer is https; TLS ends at a proxy before this server".into()),
        (Mode::Dev, false) => Ok("plain http on loopback: development only".into()),
        (Mode::Production, false) => Err("the issuer must be https".into()),
    };
    Finding { what: "TLS", state }
}

fn push_gateways(config: &Config) -> Finding {
    let state = match crate::app::push_gateways(config) {
        Ok(names) if names.is_empty() => {
            Ok("none: phones find requests when their app is opened".into())
        }
        Ok(names) => Ok(names.join(", ")),
        Err(error) => Err(format!("{error:#}")),
    };
    Finding {
        what: "push gateways",
        state,
    }
}

/// Asks the issuer, as a client would, for its metadata.
async fn issuer(config: &Config) -> Finding {
    let issuer = &config.server.issuer;
    let url = format!("{issuer}/.well-known/openid-configuration");
    let state = match HttpClient::new().get(&url, &[]).await {
        Err(error) => Err(format!(
            "{url} cannot be reached ({error}); start `assent serve` and check the proxy and its certificate"
        )),
        Ok(answer) if answer.status != 200 => Err(format!(
            "{url} answers {}; check that the proxy passes every path on",
            answer.status
        )),
        Ok(answer) if answer.json()["issuer"] != issuer.as_str() => Err(format!(
            "{url} names another issuer; check server.issuer and the proxy"
        )),
        Ok(_) => Ok(format!("{issuer} answers with its own name")),
    };
    Finding {
        what: "issuer",
        state,
    }
}
