//! Bearer tokens: the owner's secret as it is, or a signed JWT, as identity clients want one, in the name of the owner or of
//! one of the lab's principals.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use super::secrets::Secrets;

/// How long a JWT is good, in seconds: az fetches a new one for each command.
pub(crate) const LIFETIME_S: u64 = 24 * 60 * 60;
/// The longest token looked at; ours have some 500 bytes.
const LONGEST_BYTES: usize = 4096;
/// The owner's object id; principals have one of their own.
pub(crate) const OWNER: &str = "00000000-0000-0000-0000-000000000000";

/// Who asks. None: the owner, who may do everything.
pub(crate) type Principal = Option<String>;

/// A JWT for `principal`, good from `now`, in seconds since 1970. az looks for `tid` in it.
pub(crate) fn mint(
    secrets: &Secrets,
    principal: Option<&str>,
    tenant: &str,
    audience: &str,
    issuer: &str,
    now: u64,
) -> String {
    let object = principal.map_or_else(
        || OWNER.to_owned(),
        |name| uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.to_lowercase().as_bytes()).to_string(),
    );
    let header = json!({ "typ": "JWT", "alg": "HS256" });
    let payload = json!({
        "aud": audience,
        "iss": issuer,
        "iat": now,
        "nbf": now,
        "exp": now + LIFETIME_S,
        "tid": tenant,
        "oid": object,
        "sub": object,
        "appid": object,
        "idtyp": "app",
        "ver": "1.0",
        "principal": principal,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&payload));
    let signature = hmac::sign(&secrets.key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Who brings this token; None: nobody we know.
pub(crate) fn bearer(secrets: &Secrets, token: &str, now: u64) -> Option<Principal> {
    if token.len() > LONGEST_BYTES {
        return None;
    }
    if secrets.is_token(token) {
        return Some(None);
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    hmac::verify(&secrets.key, signed.as_bytes(), &signature).ok()?;
    // Ours from here on.
    let (_, payload) = signed.split_once('.')?;
    let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    (payload["exp"].as_u64()? > now).then(|| payload["principal"].as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets::of(String::from("feed"), String::from("beef"))
    }

    fn minted(principal: Option<&str>) -> String {
        mint(&secrets(), principal, "t", "a", "i", 1000)
    }

    #[test]
    fn a_token_names_whom_it_was_made_for() {
        assert_eq!(bearer(&secrets(), "feed", 0), Some(None));
        assert_eq!(bearer(&secrets(), &minted(None), 1001), Some(None));
        assert_eq!(
            bearer(&secrets(), &minted(Some("alice")), 1001),
            Some(Some(String::from("alice")))
        );
    }

    #[test]
    fn a_token_that_was_touched_or_is_old_is_nobodys() {
        let token = minted(Some("alice"));
        assert_eq!(bearer(&secrets(), &token, 1000 + LIFETIME_S), None);
        let parts: Vec<&str> = token.split('.').collect();
        let owner = URL_SAFE_NO_PAD.encode(json!({ "exp": u64::MAX, "principal": null }).to_string());
        let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none" }).to_string());
        for wrong in [
            format!("{}.{owner}.{}", parts[0], parts[2]),
            format!("{none}.{owner}."),
            format!("{}.{}.", parts[0], parts[1]),
            String::from("beef"),
            String::from(".."),
            String::new(),
            "x".repeat(1 << 20),
        ] {
            assert_eq!(bearer(&secrets(), &wrong, 1001), None, "{wrong:.80}");
        }
    }
}
