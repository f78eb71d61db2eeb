//! What is refused before anybody here is asked: messages that are too large, and services that there are not.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::large::kept;

/// How tonic tells that a message is too large, before it has read it.
const TOO_LARGE: &str = "Error, decoded message length too large";

/// A service whose refusals are worded as etcd's, for clients tell errors apart by them.
#[derive(Debug, Clone)]
pub(super) struct Worded<S>(pub(super) S);

impl<S: NamedService> NamedService for Worded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Worded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answered = self.0.call(request);
        Box::pin(async move {
            let response = answered.await?;
            let refused = Status::from_header_map(response.headers());
            Ok(match refused.filter(is_too_large) {
                Some(status) => worded(status).into_http(),
                None => kept(response),
            })
        })
    }
}

fn is_too_large(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().starts_with(TOO_LARGE)
}

/// A refusal in etcd's words, which are those of Go's gRPC.
pub(super) fn worded(status: Status) -> Status {
    if !is_too_large(&status) {
        return status;
    }
    let numbers: Vec<&str> =
        status.message().split(|letter: char| !letter.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    Status::resource_exhausted(format!("grpc: received message larger than max ({})", numbers.join(" vs. ")))
}

/// Users and roles, which there are not.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoUsers;

impl NamedService for NoUsers {
    const NAME: &'static str = "etcdserverpb.Auth";
}

impl Service<Request<Body>> for NoUsers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let refused = Status::unimplemented(
            "this is Windlass' own store, which has neither users nor roles: a certificate says who somebody is; for \
             another person or machine make one with `windlass store certificate NAME`",
        );
        ready(Ok(refused.into_http()))
    }
}
