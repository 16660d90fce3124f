//! The OpenAPI document of the control socket: every resource of `server.rs`, with the schemas of `api.rs`.

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::api;

/// One operation: method, path, what it does, the schema of its body, and what it answers.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    request: Option<Value>,
    answer: Answer,
}

enum Answer {
    Json(Value),
    /// Another content type.
    Stream(&'static str),
}

/// Of OpenAPI 3.1, whose schemas are JSON Schema 2020-12.
pub(crate) fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<api::ErrorBody>().to_value();
    let mut paths = Map::new();
    for operation in operations(&mut generator) {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(&operation, &error);
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "peerlane control socket",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a running lab answers on the unix socket that `peerlane list` names."
        },
        "paths": paths,
        "components": { "schemas": schemas }
    })
}

fn operations(generator: &mut SchemaGenerator) -> Vec<Operation> {
    let mut all = vec![
        get::<api::State>(generator, "/v1/state", "The lab, its daemon and its ports"),
        get::<Vec<api::PortState>>(generator, "/v1/ports", "Ports and their counters"),
        get::<api::Overview>(generator, "/v1/overview", "Counters, all of one moment"),
        get::<Vec<api::Drop>>(generator, "/v1/drops", "Lost packets by reason and NIC"),
        get::<Vec<api::Flow>>(generator, "/v1/flows", "Records of the flow tables"),
        get::<Vec<api::BackendHealth>>(generator, "/v1/health", "What health probes say of backends"),
        get::<Vec<api::LinkCounters>>(generator, "/v1/links", "What links did to packets"),
        get::<Vec<api::Meter>>(generator, "/v1/meter", "What crossed each peering"),
        get::<api::LabFile>(generator, "/v1/lab", "A lab file that declares what runs"),
        get::<Option<Vec<api::LearnedRoute>>>(generator, "/v1/learned-routes", "Routes learned over BGP"),
        get::<Vec<api::EventState>>(
            generator,
            "/v1/events",
            "Events that happened and that are to come",
        ),
        post::<api::EventRequest, u64>(generator, "/v1/event", "Have an event happen now"),
        post::<api::ProbeRequest, api::ProbeResult>(
            generator,
            "/v1/probe",
            "Exchange packets between real sockets",
        ),
        post::<api::ApplyRequest, control::Plan>(generator, "/v1/apply", "Make the lab what a file says"),
        post::<api::EditRequest, control::Plan>(generator, "/v1/edit", "Create, update and delete objects"),
        post::<(), ()>(generator, "/v1/stop", "Take the lab down"),
        post::<(), ()>(generator, "/v1/captures/{id}/stop", "End a capture in order"),
        post::<api::CaptureRequest, ()>(generator, "/v1/captures", "Capture packets as pcapng"),
    ];
    if let Some(capture) = all.last_mut() {
        capture.answer = Answer::Stream("application/x-pcapng");
    }
    let stream = |path, summary, content| Operation {
        method: "get",
        path,
        summary,
        request: None,
        answer: Answer::Stream(content),
    };
    // Its events: generation, change (api::Change), drops (a list of api::Drop), rates (api::Rates), missed.
    for schema in [
        generator.subschema_for::<api::Change>(),
        generator.subschema_for::<api::Rates>(),
    ] {
        drop(schema);
    }
    all.push(stream(
        "/v1/watch",
        "Changes, losses and rates as they come",
        "text/event-stream",
    ));
    all.push(stream("/metrics", "Counters for Prometheus", "text/plain"));
    all.push(get::<Map<String, Value>>(
        generator,
        "/v1/openapi.json",
        "This document",
    ));
    all
}

fn get<T: JsonSchema>(
    generator: &mut SchemaGenerator,
    path: &'static str,
    summary: &'static str,
) -> Operation {
    Operation {
        method: "get",
        path,
        summary,
        request: None,
        answer: Answer::Json(generator.subschema_for::<T>().to_value()),
    }
}

fn post<B: JsonSchema, T: JsonSchema>(
    generator: &mut SchemaGenerator,
    path: &'static str,
    summary: &'static str,
) -> Operation {
    let request = generator.subschema_for::<B>().to_value();
    Operation {
        method: "post",
        request: Some(request).filter(|schema| schema["type"] != "null"),
        ..get::<T>(generator, path, summary)
    }
}

fn described(operation: &Operation, error: &Value) -> Value {
    let content = match &operation.answer {
        Answer::Json(schema) => json!({ "application/json": { "schema": schema } }),
        Answer::Stream(kind) => json!({ *kind: {} }),
    };
    let refused = json!({ "application/json": { "schema": error } });
    let mut value = json!({
        "summary": operation.summary,
        "responses": {
            "200": { "description": operation.summary, "content": content },
            "default": { "description": "Refused, and why", "content": refused }
        }
    });
    if let Some(schema) = &operation.request {
        value["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    if operation.path.contains("{id}") {
        value["parameters"] =
            json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }]);
    }
    value
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_document_has_every_resource_and_no_other() {
        let document = super::document();
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(move |method| (path.clone(), method.clone()))
            })
            .collect();
        let source: String = include_str!("server.rs").split_whitespace().collect();
        let routed: BTreeSet<(String, String)> = source
            .split(".route(\"")
            .skip(1)
            .map(|rest| {
                let (path, rest) = rest.split_once("\",").unwrap();
                (path.to_owned(), rest.split('(').next().unwrap().to_owned())
            })
            .filter(|(path, _)| !path.contains('*'))
            .collect();
        assert!(routed.len() > 15, "{routed:?}");
        assert_eq!(described, routed);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = super::document();
        let text = document.to_string();
        let references: BTreeSet<&str> = text
            .split("\"$ref\":\"#")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert!(references.len() > 5, "{references:?}");
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
