//! Calls to the store: what went wrong, whether the store may have acted all the same, and what to try again.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use tonic::Code;

use crate::connect::Store;
use crate::pool::Endpoint;
use crate::report::{Call, CallReport};

/// How long one call may take. Longer than any election of etcd, shorter than a person's patience.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// No further try begins after this long: time for one endpoint that does not answer and another that does.
const PATIENCE: Duration = Duration::from_secs(6);

/// Tries for each endpoint: the first, one more for a connection that broke since, and one for an election.
const TRIES_PER_ENDPOINT: usize = 3;

/// The pause between two tries, cut at random by up to half.
const PAUSE: Duration = Duration::from_millis(200);

/// What is wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// No connection could be made.
    Unreachable,
    /// The store's certificate is not signed by an authority that we trust, or is for another name.
    UntrustedCertificate,
    /// The store wants a client certificate.
    CertificateRequired,
    /// One side speaks TLS and the other does not, or they have no version or cipher in common.
    TlsMismatch,
    /// No answer in time.
    Deadline,
    /// The connection broke before the answer, or the store gave up on it.
    Lost,
    /// The cluster has no leader, so it takes nothing in.
    NoLeader,
    /// The user or the password is wrong, or missing, or not wanted.
    Unauthenticated,
    /// The user may not do this.
    Denied,
    /// etcd's quota is used up.
    NoSpace,
    /// The revision that was asked for has been compacted away.
    Compacted,
    /// The lease has ended.
    LeaseGone,
    /// The answer is larger than we take.
    AnswerTooLarge,
    /// The store refused the request for another reason.
    Refused,
}

impl Problem {
    /// One word for programs: metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::UntrustedCertificate => "untrusted_certificate",
            Self::CertificateRequired => "certificate_required",
            Self::TlsMismatch => "tls_mismatch",
            Self::Deadline => "deadline",
            Self::Lost => "lost",
            Self::NoLeader => "no_leader",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::NoSpace => "no_space",
            Self::Compacted => "compacted",
            Self::LeaseGone => "lease_gone",
            Self::AnswerTooLarge => "answer_too_large",
            Self::Refused => "refused",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Unreachable => "cannot be reached",
            Self::UntrustedCertificate => "has a certificate that is not trusted",
            Self::CertificateRequired => "wants a client certificate that it trusts",
            Self::TlsMismatch => "and we do not agree on TLS",
            Self::Deadline => "did not answer in time",
            Self::Lost => "broke off before it answered",
            Self::NoLeader => "has no leader",
            Self::Unauthenticated => "did not accept the credentials",
            Self::Denied => "does not permit this user to do that",
            Self::NoSpace => "has used up its quota of space",
            Self::Compacted => "has compacted that revision away",
            Self::LeaseGone => "no longer knows the lease",
            Self::AnswerTooLarge => "gave an answer larger than we take",
            Self::Refused => "refused the request",
        }
    }
}

/// A call to the store that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store at {endpoint} {}", problem.text())]
pub struct CallError {
    /// Which endpoint was asked.
    pub endpoint: String,
    /// What is wrong.
    pub problem: Problem,
    /// What the layers below said.
    #[source]
    pub cause: Cause,
}

/// What the layers below said, outermost first. Text only: nobody should match on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

impl Error for Cause {}

impl CallError {
    pub(crate) fn new(endpoint: &str, error: &etcd_client::Error) -> Self {
        let (problem, cause) = match error {
            etcd_client::Error::GRpcStatus(status) => (classify(status), chain(status.message(), status)),
            etcd_client::Error::TransportError(error) => {
                (classify_transport(error).unwrap_or(Problem::Unreachable), chain("", error))
            }
            other => (Problem::Refused, other.to_string()),
        };
        Self { endpoint: endpoint.to_owned(), problem, cause: Cause(cause) }
    }

    pub(crate) fn deadline(endpoint: &str, after: Duration) -> Self {
        let cause = Cause(format!("nothing came within {:.1} s", after.as_secs_f64()));
        Self { endpoint: endpoint.to_owned(), problem: Problem::Deadline, cause }
    }

    /// Whether the store may have done what was asked, although no answer says so.
    pub fn may_have_applied(&self) -> bool {
        matches!(self.problem, Problem::Lost | Problem::Deadline | Problem::AnswerTooLarge)
    }

    /// Whether the same call may well succeed later, with nothing changed but the store's state.
    pub fn is_transient(&self) -> bool {
        self.is_of_endpoint() || self.problem == Problem::NoSpace
    }

    /// Whether another endpoint of the same cluster may answer.
    pub(crate) fn is_of_endpoint(&self) -> bool {
        matches!(self.problem, Problem::Unreachable | Problem::Deadline | Problem::Lost | Problem::NoLeader)
            || matches!(self.problem, Problem::UntrustedCertificate | Problem::TlsMismatch)
    }
}

/// Reads what a gRPC status says. One without a source came from the store, one with a source from this side.
fn classify(status: &tonic::Status) -> Problem {
    if let Some(problem) = status.source().and_then(classify_transport) {
        return problem;
    }
    let says = |text: &str| status.message().contains(text);
    match status.code() {
        Code::Unauthenticated => Problem::Unauthenticated,
        Code::PermissionDenied => Problem::Denied,
        // The last of these is a token from before users or roles were changed.
        Code::InvalidArgument
            if says("authentication failed") || says("user name is empty") || says("auth store is old") =>
        {
            Problem::Unauthenticated
        }
        Code::FailedPrecondition if says("authentication is not enabled") => Problem::Unauthenticated,
        Code::ResourceExhausted if says("space exceeded") => Problem::NoSpace,
        Code::ResourceExhausted if says("the answer is larger") => Problem::AnswerTooLarge,
        Code::OutOfRange if says("compacted") => Problem::Compacted,
        Code::OutOfRange if says("message length too large") => Problem::AnswerTooLarge,
        Code::NotFound if says("lease not found") => Problem::LeaseGone,
        Code::Unavailable if says("no leader") => Problem::NoLeader,
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::ResourceExhausted
        | Code::OutOfRange
        | Code::NotFound
        | Code::AlreadyExists
        | Code::Unimplemented => Problem::Refused,
        // What remains is a broken connection, or an etcd that gave up waiting for its cluster.
        _ => Problem::Lost,
    }
}

/// Finds what kept a connection from being made, or ended it, in a chain of errors.
fn classify_transport(error: &(dyn Error + 'static)) -> Option<Problem> {
    if let Some(tls) = find::<rustls::Error>(error) {
        return Some(match tls {
            rustls::Error::InvalidCertificate(_) => Problem::UntrustedCertificate,
            rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => Problem::CertificateRequired,
            _ => Problem::TlsMismatch,
        });
    }
    find::<tonic::ConnectError>(error).map(|_| Problem::Unreachable)
}

fn is_about_our_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
    )
}

/// Looks for an error of one type in a chain, also inside an I/O error, which hides what it wraps from `source`.
fn find<'error, Wanted: Error + 'static>(error: &'error (dyn Error + 'static)) -> Option<&'error Wanted> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Wanted>() {
            return Some(found);
        }
        next = below(error);
    }
    None
}

fn below<'error>(error: &'error (dyn Error + 'static)) -> Option<&'error (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Joins what a chain of errors says, leaving out what only repeats the one above.
fn chain(first: &str, error: &(dyn Error + 'static)) -> String {
    let mut text = first.to_owned();
    let mut next = if first.is_empty() { Some(error) } else { below(error) };
    while let Some(error) = next {
        let said = error.to_string();
        if !text.contains(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        next = below(error);
    }
    text
}

/// What may be tried again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Reads, and writes that do the same when done twice.
    Freely,
    /// Only what has certainly not been applied.
    WhenNotApplied,
}

impl Store {
    /// Calls the store, under a deadline, and again where that may help; each try at an endpoint that seems well.
    pub(crate) async fn call<Answer, Op, Running>(
        &self,
        call: Call,
        repeat: Repeat,
        op: Op,
    ) -> Result<Answer, CallError>
    where
        Op: Fn(Client) -> Running,
        Running: Future<Output = Result<Answer, etcd_client::Error>>,
    {
        let begun = tokio::time::Instant::now();
        let most = TRIES_PER_ENDPOINT * self.pool().len();
        let mut tries = 0;
        loop {
            let asked = tokio::time::Instant::now();
            let outcome = self.try_once(&op).await;
            let problem = outcome.as_ref().err().map(|(error, _)| error.problem);
            self.report(&CallReport { call, took: asked.elapsed(), problem });
            let (error, endpoint) = match outcome {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            tries += 1;
            // etcd-client renews a token that has expired, not one that a change of users or roles made void.
            if error.problem == Problem::Unauthenticated && tries == 1 {
                let _ = tokio::time::timeout(DEADLINE, endpoint.authenticate()).await;
                continue;
            }
            let allowed = match error.problem {
                // The only endpoint there is has had its time.
                Problem::Deadline if self.pool().len() == 1 => false,
                _ => repeat == Repeat::Freely || !error.may_have_applied(),
            };
            if !allowed || !error.is_of_endpoint() || tries >= most || begun.elapsed() >= PATIENCE {
                return Err(error);
            }
            tracing::debug!(error = &error as &dyn Error, "trying again");
            tokio::time::sleep(self.machine().jitter(PAUSE)).await;
        }
    }

    /// Calls the store once, under a deadline that covers connecting and authenticating too.
    async fn try_once<Answer, Op, Running>(&self, op: &Op) -> Result<Answer, (CallError, Arc<Endpoint>)>
    where
        Op: Fn(Client) -> Running,
        Running: Future<Output = Result<Answer, etcd_client::Error>>,
    {
        let endpoint = self.pool().current();
        let outcome = tokio::time::timeout(DEADLINE, async { op(endpoint.client().await?).await }).await;
        let error = match outcome {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => CallError::new(endpoint.url(), &error),
            Err(_) => CallError::deadline(endpoint.url(), DEADLINE),
        };
        if error.is_of_endpoint() {
            self.pool().leave(&endpoint);
        }
        Err((error, endpoint))
    }
}
