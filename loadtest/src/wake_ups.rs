//! How long a held poll takes to hear of a decision that another node took.

use crate::cast::Cast;
use crate::database::Database;
use crate::load::Outcome;
use crate::operations::{RelyingParty, unexpected};
use crate::redis_server::RedisServer;
use crate::report::WakeUps;
use crate::server::{Server, Settings};
use crate::stopwatch::{Stopwatch, pause};
use anyhow::Context as _;
use assent::domain::Decision;
use assent::phone::Phone;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;

/// Less than they are held, so that decisions come in time.
const HELD_WITHIN: Duration = Duration::from_secs(15);

/// Two nodes of one issuer: clients wait at one, phones decide at the other, one after another.
pub async fn wake_ups(
    program: &Path,
    folder: &Path,
    database: &Database,
    redis: &RedisServer,
    people: usize,
    rounds: usize,
) -> anyhow::Result<WakeUps> {
    let here = Settings::new(folder, &database.url)?.with_redis(redis);
    let there = here.another_node(folder)?;
    let mut cast = Cast::seed(&here, people).await?;
    let (first, _) = Server::start(program, &here).await?;
    let (second, _) = Server::start(program, &there).await?;
    let people = cast.enrol().await?;
    let (mut after_answer, mut after_decision) = (Outcome::default(), Outcome::default());
    for _ in 0..rounds {
        for held in round(&cast.rp, &there.address, &people, redis).await? {
            match held {
                Ok(held) => {
                    after_answer.add(held.heard.saturating_sub(held.answered));
                    after_decision.add(held.heard.saturating_sub(held.sent));
                }
                Err(error) => after_answer.fail(&error),
            }
        }
    }
    after_answer.times.sort_unstable();
    after_decision.times.sort_unstable();
    second.stop().await?;
    first.stop().await?;
    Ok(WakeUps {
        database: database.name,
        held: people.len(),
        wake_ups: after_answer.times.len(),
        failed: after_answer.failed,
        p50_ms: after_answer.percentile(50),
        p99_ms: after_answer.percentile(99),
        from_decision_p50_ms: after_decision.percentile(50),
        from_decision_p99_ms: after_decision.percentile(99),
        failures: after_answer.failures,
    })
}

/// How many requests are pending and have a poll held for them.
async fn still_waiting(redis: &RedisServer) -> anyhow::Result<usize> {
    let mut waiting = 0;
    for key in redis.keys("*:state:*").await? {
        let mut command = redis::cmd("HMGET");
        let (state, held_until): (Option<String>, Option<u64>) =
            redis.ask(command.arg(key).arg("s").arg("h")).await?;
        waiting += usize::from(state.as_deref() == Some("pending") && held_until > Some(0));
    }
    Ok(waiting)
}

/// Moments of one wake-up, since the round began.
struct Held {
    /// The phone sent its decision.
    sent: Duration,
    /// It had its answer.
    answered: Duration,
    /// The client had its tokens.
    heard: Duration,
}

async fn round(
    rp: &RelyingParty,
    there: &str,
    people: &[(String, Phone)],
    redis: &RedisServer,
) -> anyhow::Result<Vec<anyhow::Result<Held>>> {
    let began = Stopwatch::start();
    let mut held = JoinSet::new();
    for (number, (login, _)) in people.iter().enumerate() {
        let auth_req_id = rp.ask(login, &[]).await?;
        let rp = rp.at(there);
        held.spawn(async move {
            let answer = rp.hold(&auth_req_id).await;
            (number, began.elapsed(), answer)
        });
    }
    while still_waiting(redis).await? < people.len() {
        let time_left = began.elapsed() < HELD_WITHIN;
        anyhow::ensure!(time_left, "the polls are not held within {HELD_WITHIN:?}");
        pause(Duration::from_millis(50)).await;
    }
    let mut decided = Vec::with_capacity(people.len());
    for (_, phone) in people {
        let inbox = phone.inbox().await.context("the inbox")?;
        let [waiting] = inbox.as_slice() else {
            anyhow::bail!("the inbox holds {} requests, not one", inbox.len());
        };
        let shown = phone.show(waiting.id).await.context("the challenge")?;
        let sent = began.elapsed();
        let answered = phone.answer(&shown, Decision::Approve, None).await;
        answered.context("the decision")?;
        decided.push((sent, began.elapsed()));
    }
    let mut all = Vec::with_capacity(people.len());
    while let Some(ended) = held.join_next().await {
        let (number, heard, answer) = ended?;
        let (sent, answered) = decided[number];
        all.push(answer.and_then(|answer| {
            let has_tokens = answer.status == 200 && answer.json()["id_token"].is_string();
            anyhow::ensure!(
                has_tokens && heard > sent,
                unexpected("a held poll", &answer)
            );
            Ok(Held {
                sent,
                answered,
                heard,
            })
        }));
    }
    Ok(all)
}
