//! The real service's style of answers: a change is accepted at once and its outcome asked for at a URL.
//!
//! Here everything has happened by the time of the first answer; what is simulated is how a client learns of it. The first
//! look at an operation finds it under way, the second one ended.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use ::arm::{Answer, Method, Request};
use serde_json::{Value, json};

/// Outcomes that are remembered; clients ask within seconds.
const REMEMBERED: usize = 1024;
/// In seconds. 0 would count as absent, and clients then wait for 30.
const RETRY_AFTER: &str = "1";
/// `subscriptions/S/resourceGroups/G`.
const GROUP_SEGMENTS: usize = 4;
/// The words of the URLs' paths, as the service spells them.
const STATUS: &str = "operations";
const RESULT: &str = "operationResults";

/// What was accepted of late.
#[derive(Debug, Default)]
pub(crate) struct Operations(Mutex<VecDeque<Operation>>);

#[derive(Debug)]
struct Operation {
    id: String,
    answer: Answer,
    /// Somebody has looked at it.
    seen: bool,
}

impl Operations {
    /// The first answer, in place of `answer`, which can be asked for from now on.
    pub(crate) fn accept(&self, request: &Request, answer: Answer) -> Answer {
        // A resource group is there at once, at the real service too.
        if request.method == Method::Put && request.path.len() <= GROUP_SEGMENTS {
            return answer;
        }
        let id = super::requests::fresh_id();
        let url = |word: &str| {
            let subscription = request.path.get(1).map_or("", String::as_str);
            let origin = &request.origin;
            let scope = format!("{origin}/subscriptions/{subscription}/providers/Microsoft.Network");
            format!("{scope}/locations/{LOCATION}/{word}/{id}?api-version={API_VERSION}")
        };
        let status = ("azure-asyncoperation", url(STATUS));
        let result = ("location", url(RESULT));
        let retry = ("retry-after", RETRY_AFTER.to_owned());
        let mut first = match request.method {
            Method::Put => Answer {
                status: answer.status,
                headers: vec![status, retry],
                body: answer.body.clone().map(updating),
                long_running: true,
            },
            Method::Delete => Answer {
                status: 202,
                headers: vec![status, result, retry],
                body: None,
                long_running: true,
            },
            // New tags are there at once, at the real service too.
            Method::Get | Method::Head | Method::Patch => return answer,
            Method::Post => Answer {
                status: 202,
                headers: vec![result, retry],
                body: Some(Value::Null),
                long_running: true,
            },
        };
        first.headers.extend(answer.headers.iter().cloned());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.pop_front();
        }
        all.push_back(Operation {
            id,
            answer,
            seen: false,
        });
        first
    }

    /// The answer to a look at an operation; None: it is no such path.
    pub(crate) fn look(&self, request: &Request) -> Option<Answer> {
        let [.., locations, _, word, id] = request.path.as_slice() else {
            return None;
        };
        if request.method != Method::Get || !locations.eq_ignore_ascii_case("locations") {
            return None;
        }
        let is_status = word.eq_ignore_ascii_case(STATUS);
        if !is_status && !word.eq_ignore_ascii_case(RESULT) {
            return None;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = all.iter_mut().find(|operation| operation.id == *id)?;
        let under_way = !std::mem::replace(&mut operation.seen, true);
        let retry = vec![("retry-after", RETRY_AFTER.to_owned())];
        let again = vec![
            (
                "location",
                format!("{}/{}", request.origin, path_with_query(request)),
            ),
            ("retry-after", RETRY_AFTER.to_owned()),
        ];
        Some(match (is_status, under_way) {
            (true, true) => answer(200, retry, Some(json!({ "status": "InProgress" }))),
            (true, false) => answer(200, Vec::new(), Some(json!({ "status": "Succeeded" }))),
            (false, true) => answer(202, again, Some(Value::Null)),
            (false, false) => match &operation.answer.body {
                Some(body) => answer(200, Vec::new(), Some(body.clone())),
                None => answer(204, Vec::new(), None),
            },
        })
    }
}

/// Operations have no region of their own here.
const LOCATION: &str = "global";
/// Any would do.
const API_VERSION: &str = "2024-05-01";

fn answer(status: u16, headers: Vec<(&'static str, String)>, body: Option<Value>) -> Answer {
    Answer {
        status,
        headers,
        body,
        long_running: false,
    }
}

fn path_with_query(request: &Request) -> String {
    format!("{}?api-version={API_VERSION}", request.path.join("/"))
}

/// The resource on its way.
fn updating(mut body: Value) -> Value {
    if let Some(state) = body.pointer_mut("/properties/provisioningState") {
        *state = Value::from("Updating");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, path: &str) -> Request {
        Request {
            method,
            path: path
                .split('/')
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect(),
            query: Vec::new(),
            body: Value::Null,
            principal: None,
            origin: String::from("https://localhost:1"),
        }
    }

    fn header(answer: &Answer, name: &str) -> String {
        let found = answer.headers.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn follow(operations: &Operations, url: &str) -> Answer {
        let path = url.strip_prefix("https://localhost:1").unwrap();
        let path = path.split('?').next().unwrap();
        operations.look(&request(Method::Get, path)).unwrap()
    }

    #[test]
    fn a_put_is_under_way_once_and_then_done() {
        let operations = Operations::default();
        let body = json!({ "name": "v", "properties": { "provisioningState": "Succeeded" } });
        let done = answer(201, Vec::new(), Some(body));
        let first = operations.accept(
            &request(Method::Put, "/subscriptions/s/resourceGroups/g/providers/p/t/n"),
            done,
        );
        assert_eq!(first.status, 201);
        assert_eq!(
            first.body.as_ref().unwrap()["properties"]["provisioningState"],
            "Updating"
        );
        let url = header(&first, "azure-asyncoperation");
        let look = follow(&operations, &url);
        assert_eq!(look.body.as_ref().unwrap()["status"], "InProgress");
        assert_eq!(header(&look, "retry-after"), "1");
        assert_eq!(follow(&operations, &url).body.unwrap()["status"], "Succeeded");
    }

    #[test]
    fn a_delete_and_an_action_are_asked_for_at_their_location() {
        let operations = Operations::default();
        for (method, body, last) in [
            (Method::Delete, None, 204),
            (Method::Post, Some(json!({ "value": [] })), 200),
        ] {
            let done = answer(200, Vec::new(), body.clone());
            let first = operations.accept(&request(method, "/subscriptions/s/x"), done);
            assert_eq!(first.status, 202);
            let url = header(&first, "location");
            assert_eq!(follow(&operations, &url).status, 202);
            let end = follow(&operations, &url);
            assert_eq!((end.status, end.body), (last, body));
        }
        assert_eq!(
            operations.look(&request(Method::Get, "/subscriptions/s/locations/x/operations/y")),
            None
        );
    }

    #[test]
    fn old_outcomes_are_forgotten() {
        let operations = Operations::default();
        let accept = || {
            operations.accept(
                &request(Method::Delete, "/subscriptions/s/x"),
                answer(200, Vec::new(), None),
            )
        };
        let oldest = header(&accept(), "location");
        for _ in 0..REMEMBERED {
            accept();
        }
        let path = oldest
            .strip_prefix("https://localhost:1")
            .unwrap()
            .split('?')
            .next()
            .unwrap();
        assert_eq!(operations.look(&request(Method::Get, path)), None);
    }
}
