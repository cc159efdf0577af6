//! `grpc.health.v1.Health`: the whole server, its service, and each function by its name.

use std::pin::pin;
use std::time::Duration;

use futures_lite::FutureExt;
use http::HeaderMap;
use prost::Message;

use super::Door;
use super::calls::before;
use super::question::Question;
use super::stream::{Answer, Asked, Gone};
use crate::reactor::Timer;
use crate::wire::grpc::descriptor::{HEALTH, TINYFAAS};
use crate::wire::grpc::message::{HealthCheckRequest, HealthCheckResponse, ServingStatus, framed};
use crate::wire::grpc::status::{Code, Status};

/// How often a watched function is looked at. No event tells all that counts here: a handler falls ill by itself, and a
/// function whose start failed is tried again when a time has passed. A look is one in a table.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Answers `Health/Check`.
pub(super) async fn check(door: &Door, mut question: Question, mut answer: Answer) -> Result<(), Gone> {
    let work = pin!(async {
        let service = service(&mut question).await?;
        match serving(door, &service) {
            ServingStatus::ServiceUnknown => {
                let shown: String = service.chars().take(80).collect();
                let text = format!("no service or function named {shown:?}: use the empty name for the whole server");
                Err(Status::new(Code::NotFound, text))
            }
            status => Ok(status),
        }
    });
    match answer.unless_gone(work).await? {
        Err(status) => answer.end_without_message(&status, HeaderMap::new()),
        Ok(status) => {
            let mut sending = answer.begin(HeaderMap::new())?;
            sending.message(framed(&HealthCheckResponse { status: status.into() }), None).await?;
            sending.end(&Status::new(Code::Ok, ""));
        }
    }
    Ok(())
}

/// Answers `Health/Watch` until the caller gives up, its deadline passes or the runtime stops.
pub(super) async fn watch(door: &Door, asked: Asked, mut question: Question, mut answer: Answer) -> Result<(), Gone> {
    let service = match answer.unless_gone(Box::pin(service(&mut question))).await? {
        Ok(service) => service,
        Err(status) => {
            answer.end_without_message(&status, HeaderMap::new());
            return Ok(());
        }
    };
    drop(question);
    let mut sending = answer.begin(HeaderMap::new())?;
    let mut told = None;
    loop {
        let status = serving(door, &service);
        if told != Some(status) {
            sending.message(framed(&HealthCheckResponse { status: status.into() }), None).await?;
            told = Some(status);
        }
        if door.shutdown.has_begun() {
            sending.end(&Status::new(Code::Unavailable, "the runtime is stopping"));
            return Ok(());
        }
        let pause = async {
            Timer::after(WATCH_PERIOD).await;
        };
        let pause = pause.or(door.shutdown.begun());
        let pause = pin!(async {
            pause.await;
            Ok(())
        });
        if let Err(status) = sending.unless_gone(pin!(before(asked.deadline, pause))).await? {
            sending.end(&status);
            return Ok(());
        }
    }
}

async fn service(question: &mut Question) -> Result<String, Status> {
    let message = question.only().await?;
    HealthCheckRequest::decode(message)
        .map(|request| request.service)
        .map_err(|e| Status::new(Code::Internal, format!("the message is not a HealthCheckRequest: {e}")))
}

fn serving(door: &Door, service: &str) -> ServingStatus {
    let well = match service {
        "" | TINYFAAS | HEALTH => true,
        name => match door.dispatch.function(name) {
            Some(function) => function.is_serving(),
            None => return ServingStatus::ServiceUnknown,
        },
    };
    if well && !door.shutdown.has_begun() { ServingStatus::Serving } else { ServingStatus::NotServing }
}
