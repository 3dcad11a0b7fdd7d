//! Relying parties and phones that behave as real ones do when a server fails them: they send the same
//! again until they are answered, and write down what they were told.

use crate::support::process::{ServerProcess, Site, pause};
use crate::support::{CIBA_GRANT, assert_oauth_error, assert_problem, request_id};
use assent::clock::{Clock as _, SystemClock};
use assent::domain::user::Login;
use assent::domain::{Decision, RequestId, Timestamp};
use assent::entropy::SystemEntropy;
use assent::phone::http::{Answer, HttpClient, basic};
use assent::phone::{EnrolmentLink, Phone, PhoneError, ShownRequest};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// How long a relying party or a phone goes on trying before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a bank is told with; one that polls sends it for nothing.
pub const NOTIFICATION_TOKEN: &str = "notification-token-0123456789";

/// A relying party.
pub struct Bank {
    pub id: String,
    pub credentials: String,
    pub url: String,
    /// The store may forget requests that nobody has answered, and says so.
    forgets: AtomicBool,
    http: HttpClient,
}

/// Somebody who can be asked.
pub struct Person {
    pub login: String,
    /// `sub` in tokens.
    pub sub: String,
    pub phone: Phone,
    /// The phone's public key, as the phone itself knows it: a JWK with its `kid`.
    pub key: Value,
}

pub struct Cast {
    pub banks: Vec<Arc<Bank>>,
    pub people: Vec<Arc<Person>>,
}

/// What became of one request, as far as the relying party and the phone know.
pub struct Flow {
    pub bank: Arc<Bank>,
    pub person: Arc<Person>,
    pub auth_req_id: String,
    pub decision: Decision,
    /// The phone was told that its decision counts.
    pub acknowledged: bool,
    /// Every token response that arrived.
    pub tokens: Vec<Value>,
    /// Polls without an answer, or with "try again": each may have redeemed the request.
    pub unanswered: u32,
    /// What went wrong on the way, polls included.
    pub trouble: Trouble,
    /// The error that the last poll got.
    pub end: String,
    /// The store forgot the request while the decision was on its way: the relying party was told that it
    /// is over, the phone that its decision counts. What was decided can still be fetched.
    pub crossed: bool,
}

/// Attempts that were not answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// The connection broke, or there was none.
    pub dropped: u32,
    /// "Temporarily unavailable."
    pub refused: u32,
    /// When the last of them was.
    pub last: Option<Timestamp>,
}

impl Trouble {
    pub fn add(&mut self, more: Self) {
        self.dropped += more.dropped;
        self.refused += more.refused;
        self.last = self.last.max(more.last);
    }

    fn drop(&mut self) {
        self.dropped += 1;
        self.last = Some(SystemClock.now());
    }

    fn refuse(&mut self) {
        self.refused += 1;
        self.last = Some(SystemClock.now());
    }
}

impl Cast {
    /// Registers them, starts the server, and enrols a phone for each person.
    pub async fn new(site: &Site, banks: usize, people: usize) -> (Self, ServerProcess) {
        let core = site.core().await;
        let mut cast = Self {
            banks: Vec::new(),
            people: Vec::new(),
        };
        for number in 0..banks {
            let id = format!("bank-{number}");
            cast.banks.push(Bank::register(site, &id, &[]));
        }
        let mut tickets = Vec::new();
        for number in 0..people {
            let login = format!("person-{number}");
            let user = core
                .services
                .add_user(Login::parse(&login).unwrap(), None)
                .await
                .unwrap()
                .unwrap();
            let ticket = core.services.create_enrolment(&user).await.unwrap();
            let link = EnrolmentLink::parse(ticket.link.expose()).unwrap();
            tickets.push((login, user, link));
        }
        core.db.close().await;
        let server = site.serve().await;
        for (login, user, link) in tickets {
            let phone = Phone::enrol(
                &link,
                "test phone",
                Arc::new(SystemClock),
                Arc::new(SystemEntropy),
            )
            .await
            .unwrap();
            let mut key = json!(phone.to_file())["public_key"].clone();
            key["kid"] = json!(phone.id());
            cast.people.push(Arc::new(Person {
                login,
                sub: user.id.to_string(),
                key,
                phone,
            }));
        }
        (cast, server)
    }

    /// A request of the first bank to the first person that waits for an answer.
    pub async fn begin(&self, decision: Decision) -> Flow {
        Flow::begin(&self.banks[0], &self.people[0], decision).await
    }

    /// From now on the store may forget requests that nobody has answered. Whoever comes for one is told
    /// that it is over, and an answer to it is not acknowledged.
    pub fn may_forget(&self) {
        for bank in &self.banks {
            bank.forgets.store(true, Ordering::SeqCst);
        }
    }
}

/// Tries again until there is an answer. A server error that does not say "temporarily unavailable" is
/// none that we accept.
async fn until_answered<F: Future<Output = Result<Answer, String>>>(
    what: &str,
    trouble: &mut Trouble,
    mut attempt: impl FnMut() -> F,
) -> Answer {
    let until = SystemClock.now().plus(PATIENCE);
    let mut last = String::new();
    while SystemClock.now() < until {
        match attempt().await {
            Ok(answer) if answer.status == 503 => {
                assert_unavailable(&answer);
                last = answer.body;
                trouble.refuse();
            }
            Ok(answer) if answer.status >= 500 => panic!("{what}: {answer:?}"),
            Ok(answer) => return answer,
            Err(error) => {
                last = error;
                trouble.drop();
            }
        }
        pause(100).await;
    }
    panic!("{what}: no answer within {PATIENCE:?}, last: {last}");
}

/// "Not now" is said as the standards and our contract say it.
#[track_caller]
pub fn assert_unavailable(answer: &Answer) {
    if answer.header("content-type") == Some("application/json") {
        assert_oauth_error(answer, 503, "temporarily_unavailable");
    } else {
        assert_problem(answer, 503, "temporarily_unavailable");
    }
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

impl Bank {
    /// Registers one with an operator's options.
    pub fn register(site: &Site, id: &str, options: &[&str]) -> Arc<Self> {
        let more = ["--id", id, "--open-requests", "9"];
        let command = [&["client", "add", "Example Bank"][..], &more, options].concat();
        let added = site.json(&command);
        Arc::new(Self {
            credentials: basic(id, added["client_secret"].as_str().unwrap()),
            id: id.to_owned(),
            url: site.url.clone(),
            forgets: AtomicBool::new(false),
            http: HttpClient::new(),
        })
    }

    /// What the server says about a token.
    #[cfg(feature = "failpoints")]
    pub async fn introspect(&self, token: &str) -> Value {
        let headers = [("authorization", self.credentials.as_str())];
        let url = format!("{}/introspect", self.url);
        let parameters = [("token", token)];
        let answer = self.http.form(&url, &headers, &parameters).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub async fn ask(&self, key: &str, login: &str) -> Result<Answer, String> {
        let headers = [
            ("authorization", self.credentials.as_str()),
            ("idempotency-key", key),
        ];
        let parameters = [
            ("scope", "openid"),
            ("login_hint", login),
            ("binding_message", "W4SCT"),
            ("requested_expiry", "300"),
            ("client_notification_token", NOTIFICATION_TOKEN),
        ];
        let url = format!("{}/bc-authorize", self.url);
        self.http
            .form(&url, &headers, &parameters)
            .await
            .map_err(|error| error.to_string())
    }

    /// Comes for the result; the server may hold the poll for `wait` seconds.
    pub async fn poll(&self, auth_req_id: &str, wait: u32) -> Result<Answer, String> {
        let wait = format!("wait={wait}");
        let headers = [
            ("authorization", self.credentials.as_str()),
            ("prefer", wait.as_str()),
        ];
        let parameters = [("grant_type", CIBA_GRANT), ("auth_req_id", auth_req_id)];
        let url = format!("{}/token", self.url);
        self.http
            .form(&url, &headers, &parameters)
            .await
            .map_err(|error| error.to_string())
    }
}

impl Person {
    /// Looks and decides, however often the phone has to send it. `false`: there is no such request.
    pub async fn answer(&self, id: RequestId, decision: Decision, trouble: &mut Trouble) -> bool {
        match self.look(id, trouble).await {
            Some(shown) => self.decide(&shown, decision, trouble).await,
            None => false,
        }
    }

    /// Opens the app and looks for the request.
    async fn look(&self, id: RequestId, trouble: &mut Trouble) -> Option<ShownRequest> {
        let until = SystemClock.now().plus(PATIENCE);
        while SystemClock.now() < until {
            let seen = match self.phone.inbox().await {
                Ok(waiting) if !waiting.iter().any(|waiting| waiting.id == id) => return None,
                Ok(_) => self.phone.show(id).await,
                Err(error) => Err(error),
            };
            match seen {
                Ok(shown) => return Some(shown),
                Err(PhoneError::Transport(_)) => trouble.drop(),
                Err(PhoneError::Refused { status: 503, .. }) => trouble.refuse(),
                Err(PhoneError::Refused { status: 404, .. }) => return None,
                Err(error) => panic!("the phone cannot see the request: {error}"),
            }
            pause(100).await;
        }
        panic!("the phone sees nothing within {PATIENCE:?}");
    }

    /// Sends a decision, and sends it again until it is acknowledged. `false`: there is no such request.
    async fn decide(
        &self,
        shown: &ShownRequest,
        decision: Decision,
        trouble: &mut Trouble,
    ) -> bool {
        let answer = until_answered("decision", trouble, || async {
            let answer = self.phone.try_answer(shown, decision, None).await;
            answer.map_err(|error| error.to_string())
        })
        .await;
        match answer.status {
            200 => true,
            404 => false,
            _ => panic!("a decision was refused: {answer:?}"),
        }
    }
}

impl Flow {
    /// The bank asks until it is answered; its idempotency key makes that one request.
    pub async fn begin(bank: &Arc<Bank>, person: &Arc<Person>, decision: Decision) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let key = format!("key-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut trouble = Trouble::default();
        let asked = until_answered("bc-authorize", &mut trouble, || {
            bank.ask(&key, &person.login)
        })
        .await;
        assert_eq!(asked.status, 200, "{asked:?}");
        Self {
            auth_req_id: asked.json()["auth_req_id"].as_str().unwrap().to_owned(),
            bank: bank.clone(),
            person: person.clone(),
            decision,
            acknowledged: false,
            tokens: Vec::new(),
            unanswered: 0,
            trouble,
            end: String::new(),
            crossed: false,
        }
    }

    pub fn id(&self) -> RequestId {
        request_id(&self.auth_req_id)
    }

    /// The person looks and decides, however often the phone has to send it.
    pub async fn decide(&mut self) {
        let id = self.id();
        let answered = self.person.answer(id, self.decision, &mut self.trouble);
        self.acknowledged = answered.await;
        self.assert_known();
    }

    pub async fn look(&mut self) -> ShownRequest {
        let id = self.id();
        let shown = self.person.look(id, &mut self.trouble).await;
        shown.expect("the inbox lost a request")
    }

    /// Sends the decision about what was shown until it is acknowledged.
    pub async fn send(&mut self, shown: &ShownRequest) {
        self.acknowledged = self
            .person
            .decide(shown, self.decision, &mut self.trouble)
            .await;
        self.assert_known();
    }

    /// The relying party waits at the server while the person decides.
    pub async fn decide_while_held(&mut self, wait: u32) {
        let (person, id, decision) = (self.person.clone(), self.id(), self.decision);
        let decided = async {
            let mut trouble = Trouble::default();
            let acknowledged = person.answer(id, decision, &mut trouble).await;
            (acknowledged, trouble)
        };
        let ((acknowledged, trouble), ()) = tokio::join!(decided, self.redeem(wait));
        self.trouble.add(trouble);
        self.acknowledged = acknowledged;
        self.assert_known();
        if acknowledged && self.is_forgotten() {
            self.crossed = true;
            self.end.clear();
            self.redeem(0).await;
        }
    }

    fn assert_known(&self) {
        assert!(
            self.acknowledged || self.may_be_forgotten(),
            "a request is lost"
        );
    }

    fn may_be_forgotten(&self) -> bool {
        self.bank.forgets.load(Ordering::SeqCst)
    }

    /// The store forgot it before anybody had decided.
    pub fn is_forgotten(&self) -> bool {
        self.end == "expired_token"
    }

    /// Polls until the request is over, and once more: what is over stays as it is.
    pub async fn redeem(&mut self, wait: u32) {
        let until = SystemClock.now().plus(PATIENCE);
        while SystemClock.now() < until {
            let mut trouble = Trouble::default();
            let answer = until_answered("token", &mut trouble, || {
                self.bank.poll(&self.auth_req_id, wait)
            })
            .await;
            self.unanswered += trouble.dropped + trouble.refused;
            self.trouble.add(trouble);
            let error = answer.json()["error"].as_str().unwrap_or("").to_owned();
            let over = !self.end.is_empty();
            let has_tokens = !self.tokens.is_empty();
            match (answer.status, error.as_str()) {
                (200, _) if !over && !has_tokens => self.tokens.push(answer.json()),
                (400, "authorization_pending" | "slow_down") if !over && !has_tokens => {
                    pause(200).await;
                }
                // A store that forgot the last of it believes so until it has been told again.
                (400, "authorization_pending" | "slow_down") if self.may_be_forgotten() => {
                    pause(200).await;
                }
                (400, "access_denied") if !over && !has_tokens => self.end = error,
                // What the store forgot is over, but for a decision that is just on its way.
                (400, "expired_token") if !over && !has_tokens && self.may_be_forgotten() => {
                    self.end = error;
                    return;
                }
                // Used up: by the tokens that came, or by those that were lost on the way.
                (400, "invalid_grant") if !over && (has_tokens || self.unanswered > 0) => {
                    self.end = error;
                }
                (400, error) if error == self.end => return,
                _ => panic!(
                    "a lie, after {} sets of tokens and {:?}: {answer:?}",
                    self.tokens.len(),
                    self.end
                ),
            }
        }
        panic!("the request is not over within {PATIENCE:?}");
    }

    /// The access token's claims, one for each response that arrived.
    pub fn access_claims(&self) -> Vec<Value> {
        self.tokens
            .iter()
            .map(|tokens| claims(tokens["access_token"].as_str().unwrap()))
            .collect()
    }
}

/// What a JWT says, unverified.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&assent::crypto::from_base64url(payload).unwrap()).unwrap()
}
