//! What identity clients ask before their first request: where things are, and for a token.

use std::collections::HashMap;

use ::arm::Error;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::requests::{json_response, origin, refusal, unix_now};
use super::{Api, hygiene, token};

/// What az asks tokens for when nothing else is said.
const AUDIENCE: &str = "https://management.azure.com/";
const IDENTITY: HeaderName = HeaderName::from_static("x-identity-header");
/// A form of four short fields.
const FORM_LIMIT_BYTES: usize = 16 << 10;

/// `GET /metadata/endpoints`, which `az cloud register` and Terraform read. The key `suffixes` must be there.
pub(super) async fn endpoints(State(api): State<Api>, headers: HeaderMap) -> Response {
    let origin = origin(&api, &headers);
    let body = json!({
        "name": "peerlane",
        "portal": origin,
        "authentication": {
            "loginEndpoint": origin,
            "audiences": [format!("{origin}/"), AUDIENCE],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "resourceManager": origin,
        "graph": origin,
        "microsoftGraphResourceId": origin,
        "suffixes": {},
    });
    json_response(StatusCode::OK, &body)
}

/// `GET /msi/token`: a managed identity's token, for whoever knows the secret of `identity-header`.
pub(super) async fn managed(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let said = match hygiene::single(&headers, &IDENTITY) {
        Ok(said) => said.unwrap_or_default(),
        Err(error) => return refusal(&error),
    };
    if !api.inner.secrets.is_identity_header(said) {
        let message =
            "X-IDENTITY-HEADER has to be what the file identity-header in the lab's run directory says";
        return refusal(&hygiene::unauthenticated("AuthenticationFailed", message));
    }
    let audience = query.get("resource").map_or(AUDIENCE, String::as_str);
    let who = ["client_id", "object_id", "principal_id"];
    let who = who.iter().find_map(|key| query.get(*key)).map(String::as_str);
    match issue(&api, &headers, who, audience) {
        Ok((access_token, expires_on)) => json_response(
            StatusCode::OK,
            &json!({
                "access_token": access_token,
                "expires_on": expires_on.to_string(),
                "resource": audience,
                "token_type": "Bearer",
                "client_id": who.unwrap_or(token::OWNER),
            }),
        ),
        Err(error) => refusal(&error),
    }
}

/// `POST /{tenant}/oauth2/v2.0/token`: client credentials. The secret is the owner's token, the client a principal of the lab, or
/// anything else for its owner.
pub(super) async fn client_credentials(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |status, code: &str, message: &str| {
        let body = json!({ "error": code, "error_description": message });
        json_response(status, &body)
    };
    if let Err(error) = hygiene::check_content_type(&headers, "application/x-www-form-urlencoded") {
        return refusal(&error);
    }
    if body.len() > FORM_LIMIT_BYTES {
        return refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request",
            "the form is too long",
        );
    }
    let Some(form) = form(&body) else {
        return refused(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "the form cannot be read",
        );
    };
    let field = |name: &str| form.get(name).map(String::as_str);
    if field("grant_type") != Some("client_credentials") {
        let message = "only grant_type=client_credentials is here";
        return refused(StatusCode::BAD_REQUEST, "unsupported_grant_type", message);
    }
    if !api
        .inner
        .secrets
        .is_token(field("client_secret").unwrap_or_default())
    {
        let message = "client_secret has to be what the file token in the lab's run directory says";
        return refused(StatusCode::UNAUTHORIZED, "invalid_client", message);
    }
    let audience = field("scope").map_or(AUDIENCE, |scope| scope.trim_end_matches(".default"));
    match issue(&api, &headers, field("client_id"), audience) {
        Ok((access_token, _)) => json_response(
            StatusCode::OK,
            &json!({
                "access_token": access_token,
                "expires_in": token::LIFETIME_S,
                "ext_expires_in": token::LIFETIME_S,
                "token_type": "Bearer",
            }),
        ),
        Err(error) => refused(StatusCode::BAD_REQUEST, "invalid_request", &error.message),
    }
}

/// Where a token is to be had.
pub(super) async fn openid(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(tenant): Path<String>,
) -> Response {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !tenant.chars().all(word) {
        return refusal(&Error::bad("InvalidRequestUri", "this is no name of a tenant"));
    }
    let authority = format!("{}/{tenant}", origin(&api, &headers));
    let body: Value = json!({
        "issuer": format!("{authority}/v2.0"),
        "authorization_endpoint": format!("{authority}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{authority}/oauth2/v2.0/token"),
        "device_authorization_endpoint": format!("{authority}/oauth2/v2.0/devicecode"),
        "jwks_uri": format!("{authority}/discovery/v2.0/keys"),
        "response_types_supported": ["token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["HS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
    });
    json_response(StatusCode::OK, &body)
}

/// A token and when it ends. `who` names a principal of the lab; whoever is none acts as the owner, whose secret was shown.
fn issue(api: &Api, headers: &HeaderMap, who: Option<&str>, audience: &str) -> Result<(String, u64), Error> {
    let current = api.inner.lab.current();
    let principal = who.and_then(|who| {
        let mut names = current.config.principals.keys();
        names
            .find(|name| name.eq_ignore_ascii_case(who))
            .map(String::as_str)
    });
    let tenant = ::arm::tenant_of(&current.config, principal);
    let issuer = format!("{}/{tenant}/", origin(api, headers));
    let now = unix_now();
    let text = token::mint(&api.inner.secrets, principal, &tenant, audience, &issuer, now);
    Ok((text, now + token::LIFETIME_S))
}

fn form(body: &[u8]) -> Option<HashMap<String, String>> {
    let text = std::str::from_utf8(body).ok()?;
    let uri = axum::http::Uri::builder()
        .path_and_query(format!("/?{text}"))
        .build()
        .ok()?;
    Query::try_from_uri(&uri).ok().map(|query| query.0)
}
