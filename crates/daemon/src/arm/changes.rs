//! One change at a time: a bounded queue, and the thread that empties it.

use std::io;
use std::sync::Arc;

use ::arm::{Answer, Error, Method, Reply, Request};
use tokio::sync::{mpsc, oneshot};

use super::requests::{Conditions, view};
use crate::change::ChangeError;
use crate::running::Lab;

/// Changes that wait; a client beyond is told to come back. One takes milliseconds, with a VM some tens of them.
const QUEUE: usize = 64;

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Changes(mpsc::Sender<Job>);

#[derive(Debug)]
struct Job {
    request: Request,
    conditions: Conditions,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

impl Changes {
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(lab: Arc<Lab>) -> io::Result<Self> {
        let (sender, mut jobs) = mpsc::channel::<Job>(QUEUE);
        // It ends with the last sender.
        std::thread::Builder::new()
            .name(String::from("arm"))
            .spawn(move || {
                while let Some(job) = jobs.blocking_recv() {
                    let done = carry_out(&lab, &job.request, &job.conditions);
                    // Whoever asked may have gone; the change is made or not, as a whole.
                    let _ = job.answer.send(done);
                }
            })?;
        Ok(Self(sender))
    }

    /// Waits for its turn and makes the change that the request asks for.
    ///
    /// # Errors
    /// It was refused, and nothing has changed.
    pub(crate) async fn make(&self, request: Request, conditions: Conditions) -> Result<Answer, Error> {
        let (answer, done) = oneshot::channel();
        let job = Job {
            request,
            conditions,
            answer,
        };
        self.0.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                let message = format!("{QUEUE} changes wait already; try again");
                Error::new(429, "TooManyRequests", message)
            }
            mpsc::error::TrySendError::Closed(_) => down(),
        })?;
        done.await.unwrap_or_else(|_| Err(down()))
    }
}

/// Plans and applies in one breath: the lab that is planned for is the one that changes.
fn carry_out(lab: &Lab, request: &Request, conditions: &Conditions) -> Result<Answer, Error> {
    let mut planned = None;
    let applied = lab.change(request.principal.as_deref(), |_| {
        let reply = conditions
            .check(request, &lab.current())
            .and_then(|()| view(&lab.current(), |view| ::arm::plan_request(request, view)));
        let operations = match &reply {
            Ok(Reply::Change(change)) => Some(change.operations.clone()),
            _ => None,
        };
        planned = Some(reply);
        // Nothing to apply: the lab is left alone.
        operations
            .filter(|operations| !operations.is_empty())
            .ok_or_else(nothing)
    });
    match (planned, applied) {
        (Some(Err(error)), _) => Err(error),
        (Some(Ok(Reply::Answer(answer))), _) => Ok(answer),
        (Some(Ok(Reply::Change(change))), applied) => {
            match applied {
                Err(error) if !change.operations.is_empty() => return Err(refused(error)),
                _ => {}
            }
            let body = change.show.map(|path| shown(lab, request, path)).transpose()?;
            Ok(Answer {
                status: change.status,
                body: body.flatten(),
                long_running: true,
                ..Answer::default()
            })
        }
        (Some(Ok(Reply::Probe(_))), _) => Err(Error::method_not_allowed()),
        (None, Err(error)) => Err(refused(error)),
        (None, Ok(_)) => Err(down()),
    }
}

/// The resource as a GET shows it.
fn shown(lab: &Lab, request: &Request, path: Vec<String>) -> Result<Option<serde_json::Value>, Error> {
    let get = Request {
        method: Method::Get,
        path,
        query: Vec::new(),
        body: serde_json::Value::Null,
        // Who may write and not read sees what was written.
        principal: None,
        origin: request.origin.clone(),
    };
    match view(&lab.current(), |view| ::arm::plan_request(&get, view))? {
        Reply::Answer(answer) => Ok(answer.body),
        Reply::Change(_) | Reply::Probe(_) => Ok(None),
    }
}

/// Stands for "no operations"; whoever sees it knows better.
fn nothing() -> model::change::Refusal {
    model::change::Refusal {
        code: "NothingToDo",
        message: String::from("nothing is to be changed"),
        target: String::new(),
        help: None,
        details: Vec::new(),
    }
}

fn refused(error: ChangeError) -> Error {
    match error {
        ChangeError::Refused(refusal) => refusal.into(),
        ChangeError::Failed(error) => {
            let message = match error.remedy {
                Some(remedy) => format!("{} ({remedy})", error.message),
                None => error.message,
            };
            // A client repeats whatever is answered with 5xx, and this machine cannot do it the next time either.
            Error::new(409, "Sim.CannotDeploy", message)
        }
        ChangeError::Down => down(),
        // Clients try again.
        ChangeError::NotYet => Error::new(429, "Sim.LabIsComingUp", error.to_string()),
    }
}

fn down() -> Error {
    Error::new(409, "Sim.LabIsGoingDown", "the lab is being taken down")
}
